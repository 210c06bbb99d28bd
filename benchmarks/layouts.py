"""What `init` makes of the layouts of public data sets, drawn small: recognized, rightly refused, or wrong.

    python benchmarks/layouts.py [--train] [--out docs/results/layouts.md]

Each layout of tests/suggest is drawn, looked at as `classwise init` does, and compared with what it is. With --train
what is recognized is also trained for an epoch with the config that `init` writes. Exits 1 if a layout is wrong.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # the layouts are those of the tests

from classwise.config.load import load_config  # noqa: E402
from classwise.errors import ClasswiseError  # noqa: E402
from classwise.run.api import train  # noqa: E402
from classwise.suggest.config import write_suggestion  # noqa: E402
from tests.suggest.folder_layouts import FOLDERS  # noqa: E402
from tests.suggest.layouts import Layout, Seen, differences, seen  # noqa: E402
from tests.suggest.table_layouts import TABLES  # noqa: E402

QUICK = [
    ("training.epochs", "1"),
    ("selection.first_epoch", "1"),
    ("report.baselines", "false"),
    ("report.resamples", "0"),
    ("training.precision", "fp32"),
    ("training.threads", "1"),
    ("data.workers", "0"),
]
LINE = 160
"""Characters of what `init` says that the table shows of one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at all layouts and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", action="store_true", help="also train an epoch with each config")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "results" / "layouts.md")
    options = parser.parse_args(arguments)
    rows = [one_row(layout, options.train) for layout in [*FOLDERS, *TABLES]]
    right = sum(is_right for _, is_right in rows)
    options.out.write_text(page(rows, right, options.train), encoding="utf-8")
    print(f"{right} of {len(rows)} right: {options.out}")
    return 0 if right == len(rows) else 1


def one_row(layout: Layout, with_training: bool) -> tuple[list[str], bool]:
    """The cells of a layout in the table, and whether it is right."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir()
        found = seen(layout, folder)
        wrong = differences(layout, found)
        if with_training and found.suggestion is not None:
            wrong += training_error(found, Path(name) / "run")
    verdict = "; ".join(wrong) if wrong else "refused, rightly" if found.refusal else "yes"
    print(
        f"{'ok   ' if not wrong else 'WRONG'} {layout.name} ({layout.origin}) {'; '.join(wrong)}",
        file=sys.stderr,
    )
    return [layout.name, layout.origin, said(found), verdict], not wrong


def training_error(found: Seen, folder: Path) -> list[str]:
    """What `train` says of the written config, if it does not train."""
    folder.mkdir()
    assert found.suggestion is not None
    write_suggestion(found.suggestion, folder / "classwise.toml", folder / "samples.csv")
    try:
        with contextlib.chdir(folder):
            train(load_config(folder / "classwise.toml", QUICK), folder / "it", quiet=True)
    except ClasswiseError as error:
        return [f"train refuses it: {error}"]
    return []


def said(found: Seen) -> str:
    """What `init` prints, without the model; or the refusal."""
    lines = [found.refusal] if found.refusal else found.said.splitlines()
    shown = [line for line in lines if "model: " not in line and not line.startswith("class shares")]
    short = [line if len(line) <= LINE else f"{line[: LINE - 3]}..." for line in shown]
    return "<br>".join(line.replace("|", "\\|").replace("<", "&lt;") for line in short)


def page(rows: Sequence[tuple[list[str], bool]], right: int, with_training: bool) -> str:
    """The page with the table."""
    trained = " and trained for an epoch with the config that it writes" if with_training else ""
    head = f"""# Layouts of public data sets

What `classwise init` makes of {len(rows)} layouts: the form and the names of the files of public data sets and of what
tools write, drawn with a few small images each{trained}. {right} of {len(rows)} are right: recognized as what they are,
or refused for what they are. Written by `python benchmarks/layouts.py --train`; the layouts are drawn in
`tests/suggest/*_layouts.py`.

A guess that decides what is learnt is one of the lines that begin with `-`: the choice, why, and what to write
otherwise.

| layout | as in | `init` says | right |
|---|---|---|---|
"""
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells, _ in rows)


if __name__ == "__main__":
    sys.exit(main())
