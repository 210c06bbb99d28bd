"""How long does a whole run at defaults take, beside an earlier commit, and how good is its answer?

    python benchmarks/default_run.py COMMIT [--pairs 2] [--counts 500 350 250 175 120 80 50 30 20] [--json FILE]

Draws 300 x 300 JPEG files of nine unequal classes (1,575 of them), checks COMMIT out beside the repository, and runs
`classwise init FOLDER` and `classwise train` with it and with the working tree, in turns (old new, new old). Each run
gets an empty cache directory, so none finds what another remembered or wrote. Prints for each the seconds of `train`,
when the first answer was there, the epochs that followed, and the macro F1 of the validation rows with its interval;
and the median of the ratios new / old.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
COUNTS = (500, 350, 250, 175, 120, 80, 50, 30, 20)
SIZE = 300


def draw(folder: Path, counts: list[int]) -> None:
    """A folder for each class: stripes of the class's own direction, more or less bent, in strong noise. Neighbouring
    classes overlap, so that no model gets all of them right. All directions are within a quarter turn, so that the
    mirror image of one class is not another one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    for k, count in enumerate(counts):
        (folder / str(k)).mkdir(parents=True)
        for i in range(count):
            angle = np.pi / 2 * (k + 0.5 + rng.normal(0, 0.3)) / len(counts)
            along = x * np.cos(angle) + y * np.sin(angle)
            wave = np.sin(along * rng.uniform(0.1, 0.3) + rng.uniform(0, 6) + 2 * np.sin(y / 40))
            image = 128 + 40 * wave[..., None] * rng.uniform(0.3, 1, 3) + rng.normal(0, 30, (SIZE, SIZE, 3))
            written = cv2.imencode(
                ".jpg", image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90]
            )
            (folder / str(k) / f"{i}.jpg").write_bytes(written[1].tobytes())


def run(tree: Path, images: Path, threads: int | None) -> dict[str, Any]:
    """`init` and `train` with the package of a tree: seconds of `train`, when each line came, and the scores."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        environment = os.environ | {"PYTHONPATH": str(tree / "src"), "XDG_CACHE_HOME": str(work / "cache")}
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-m", "classwise"]
        subprocess.run(
            [*command, "init", str(images)], cwd=work, env=environment, check=True, capture_output=True
        )
        lines: list[tuple[float, str]] = []
        started = time.perf_counter()
        with subprocess.Popen(
            [*command, "train", "classwise.toml", "--run", "run"],
            cwd=work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout
            lines = [(time.perf_counter() - started, line.rstrip()) for line in process.stdout]
        seconds = time.perf_counter() - started
        assert process.returncode == 0, "\n".join(line for _, line in lines)
        metrics = json.loads((work / "run/metrics.json").read_text())
        history = (work / "run/history.jsonl").read_text().splitlines()
    return {"seconds": seconds, "epochs": len(history), "lines": lines, "metrics": metrics}


def measure(commit: str, counts: list[int], pairs: int, threads: int | None = None) -> dict[str, Any]:
    """Both builds in turns."""
    found: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
    with tempfile.TemporaryDirectory() as name:
        old, images = Path(name) / "old", Path(name) / "images"
        draw(images, counts)
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(old), commit], cwd=ROOT, check=True
        )
        try:
            for pair in range(pairs):
                for build in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                    found[build].append(run(old if build == "old" else ROOT, images, threads))
                    print(said(build, found[build][-1]), file=sys.stderr, flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
    ratios = [new["seconds"] / old["seconds"] for old, new in zip(found["old"], found["new"], strict=True)]
    return {"ratios": ratios, "runs": found}


def said(build: str, found: dict[str, Any]) -> str:
    """One run in words."""
    target = next(iter(found["metrics"]["targets"].values()))
    interval = target["intervals"]["macro_f1"]
    lines = "".join(f"\n    {seconds:6.1f} s {line[:110]}" for seconds, line in found["lines"] if line)
    return (
        f"{build}: {found['seconds']:.1f} s, {found['epochs']} epochs, macro F1 {target['macro_f1']:.4f}"
        f" {interval}{lines}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument(
        "--threads", type=int, help="of torch, in both; as they choose themselves if left out"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.commit, options.counts, options.pairs, options.threads)
    ratios = sorted(found["ratios"])
    print(f"new / old x {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
