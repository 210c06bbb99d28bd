"""Row 13 once more: readers fed by atheris, which looks for inputs that reach new code, where it is installed."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.counting import Count, Figure

RUNS = 100_000
PROGRAM = """
import sys
from pathlib import Path
import atheris
with atheris.instrument_imports(include=["classwise"]):
    from classwise import errors
    from classwise.config import load as config_file
    from classwise.run import checkpoint
reader, folder = sys.argv[1], Path(sys.argv[2])
taken = 0
def one(data):
    global taken
    taken += 1
    try:
        if reader == "config":
            (folder / "classwise.toml").write_bytes(data)
            config_file.load_config(folder / "classwise.toml")
        else:
            (folder / "manifest.json").write_bytes(data)
            checkpoint._read_manifest(folder)
    except errors.ClasswiseError:
        pass
atheris.Setup([sys.argv[0], "-runs=" + sys.argv[3], "-max_len=4096", "-seed=1", str(folder / "corpus")], one)
atheris.Fuzz()
"""
CONFIG = b"""
seed = 1
[data]
source = "a.csv"
augment = "light"
[targets.mask]
column = "mask"
labels = ["a", "b"]
loss = { name = "focal", gamma = 1.0 }
[model]
image_size = [16, 16]
[schedule]
name = "cosine"
[training]
epochs = 2
"""


def by_coverage(runs: int = RUNS) -> Count:
    """Inputs to two readers: only errors of our own. One that is another ends the process, and with it the count."""
    from tests.faults.states import files_of

    count = Count()
    for reader, seed in (("config", CONFIG), ("manifest", files_of(1)["manifest.json"])):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "corpus").mkdir()
            (folder / "corpus/seed").write_bytes(seed)
            command = [sys.executable, "-c", PROGRAM, reader, name, str(runs)]
            done = subprocess.run(command, capture_output=True, cwd=name, check=False)
            said = done.stderr.decode(errors="replace")
            held = done.returncode == 0 and f"Done {runs} runs" in said
            for _ in range(runs if held else 1):
                count.add(held, reader, said[-600:])
    return count


FIGURES = (
    [
        Figure(
            13,
            "fuzz-atheris",
            "inputs to the readers of configs and manifests, drawn by atheris towards code not reached yet: only"
            " errors of our own",
            by_coverage,
        )
    ]
    if importlib.util.find_spec("atheris")
    else []
)
