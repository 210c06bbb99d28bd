"""What is equal to classwise's numbers in Lightning and in the Hugging Face Trainer, and what differs by how much?

    python benchmarks/lightning_twin.py [--work FOLDER] [--only updates runs scores hf] [--write]

The bundled images, the network and the keys of examples/by-hand.toml. `--write` puts the tables into
docs/results/lightning.md. Needs the extra `peers`; about six minutes on two cores.
"""

import argparse
import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path

from imbalance import replace_between
from twin.hf import hf_table
from twin.runs import run_table
from twin.scores import score_table
from twin.updates import update_table

VERSIONS = ("torch", "pytorch-lightning", "torchmetrics", "transformers", "accelerate", "scikit-learn")
TABLES: dict[str, Callable[[Path], list[str]]] = {
    "updates": update_table,
    "runs": run_table,
    "scores": score_table,
    "hf": lambda _: hf_table(),
}


def versions_text() -> str:
    """`torch 2.15.0, ...`, without the build."""
    return ", ".join(f"{name} {importlib.metadata.version(name).partition('+')[0]}" for name in VERSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--work", type=Path, help="where the images are written (default: a temporary folder)"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(TABLES), default=tuple(TABLES))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = {"versions": [f"Measured with {versions_text()}."]}
        tables |= {name: TABLES[name](options.work or Path(folder)) for name in options.only}
    for name, lines in tables.items():
        print(f"\n{name}\n" + "\n".join(lines))
        if options.write:
            replace_between("lightning.md", name, "\n".join(lines))


if __name__ == "__main__":
    main()
