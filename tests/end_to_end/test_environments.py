"""Where classwise runs: without what Windows lacks, without a home folder, with any encoding of the output.

Another system is simulated by a `sitecustomize.py` that takes names away before anything is imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import classwise

WINDOWS = """\
import os, signal, sys
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "pthread_sigmask"):
    delattr(signal, name)
for name in (
    "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "geteuid", "pread", "pwrite", "fchmod", "fstatvfs",
    "sched_getaffinity",
):
    delattr(os, name)
os.supports_dir_fd = set()
sys.modules["fcntl"] = None
"""
NO_HOME = """\
import pwd

def unknown(uid):
    raise KeyError(uid)

pwd.getpwuid = unknown
"""
QUICK = [
    *("--training.epochs", "1", "--selection.first_epoch", "1", "--training.precision", "fp32"),
    *("--report.baselines", "false", "--report.resamples", "0", "--training.threads", "1"),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with two classes whose names few encodings have, and the config that `init` writes for it."""
    for i in range(20):
        path = tmp_path / "images" / "猫狗"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 100, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise + 100 * (i % 2)).save(path)
    run(tmp_path, "init", "images", "--scratch", "--no-hub")
    return tmp_path


def run(here: Path, *arguments: str, custom: str = "", **variables: str | None) -> tuple[str, str]:
    """One command as a user runs it; its stdout and stderr. `custom`: what sitecustomize.py does."""
    stub = here / "stub"
    stub.mkdir(exist_ok=True)
    (stub / "sitecustomize.py").write_text(custom)
    source = Path(classwise.__file__).parents[1]
    wanted = {"PYTHONPATH": f"{source}{os.pathsep}{stub}", "XDG_CACHE_HOME": str(here / "cache"), **variables}
    done = subprocess.run(
        [sys.executable, "-m", "classwise", *arguments],
        cwd=here,
        env={k: v for k, v in (os.environ | wanted).items() if v is not None},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("workers", ["0", "1"])
def test_trains_and_predicts_without_what_windows_lacks(here: Path, workers: str) -> None:
    """No fcntl, no signal masks, no flags and look-ups that only POSIX has; workers are spawned."""
    options = [*QUICK, "--data.workers", workers, "--run", "out"]
    if workers != "0":
        options += ["--data.start_method", "spawn"]
    _, said = run(here, "train", "classwise.toml", *options, custom=WINDOWS)
    assert "decoded images are not cached" in said
    assert json.loads((here / "out/status.json").read_text())["state"] == "finished"
    assert not list(here.glob("out/.*"))  # the lock is gone

    run(here, "predict", "out", "images", "--out", "predictions.csv", custom=WINDOWS)
    assert len((here / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 21


def test_without_fcntl_a_run_is_locked_all_the_same(here: Path) -> None:
    """The package's lock keeps a second process out, and says who holds it."""
    program = (
        "from pathlib import Path\n"
        "from classwise.errors import OutputError\n"
        "from classwise.run.lock import locked, refuse_held\n"
        "import subprocess, sys\n"
        "code = 'from pathlib import Path; from classwise.run.lock import locked\\nwith locked(Path()): pass'\n"
        "with locked(Path()):\n"
        "    try:\n"
        "        refuse_held(Path())\n"
        "        raise SystemExit('not refused')\n"
        "    except OutputError:\n"
        "        pass\n"
        "    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "    assert 'is in use by process' in other.stderr, other.stderr\n"
        "subprocess.run([sys.executable, '-c', code], check=True)\n"
    )
    stub = here / "stub"
    (stub / "sitecustomize.py").write_text(WINDOWS)
    source = Path(classwise.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=here,
        env=os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{stub}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_user_without_home_and_name_trains(here: Path) -> None:
    """HOME is not set and the user is not in the table of users: nothing is cached, which is said."""
    variables = {"HOME": None, "XDG_CACHE_HOME": None}
    _, said = run(here, "train", "classwise.toml", *QUICK, custom=NO_HOME, **variables)
    assert "no home folder is known; set HOME or XDG_CACHE_HOME" in said
    assert not (here / "~").exists()


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252:strict"])
def test_any_output_encoding_prints_all_that_is_said(here: Path, encoding: str) -> None:
    """What the encoding lacks is written as an escape: no label is lost, and there is no traceback."""
    run(here, "train", "classwise.toml", *QUICK, "--run", "out", PYTHONIOENCODING=encoding)
    scores, _ = run(here, "evaluate", "out", PYTHONIOENCODING=encoding)
    assert r"\u732b" in scores
    assert r"\u72d7" in scores
    assert "猫" in (here / "out/split.csv").read_text(encoding="utf-8")
