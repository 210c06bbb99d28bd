"""Resume after any update, twice, for runs with everything that has a state: the end is byte-equal."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.counting import Count, Figure
from tests.faults.kills import count_of
from tests.faults.trials import Board, Scene
from tests.helpers.same_end import differences

RANKED = {"type": "ranking", "column": "relevance", "query": "query"}
# Of each: which data and base config, and what is changed.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "average, dropout, strong augmentation": ("people", {}),
    "balanced sampling, plateau with warm-up, early stopping": (
        "people",
        {
            "data__sampling": "balanced",
            "schedule": {"name": "plateau", "warmup_epochs": 0.5, "patience": 0},
            "selection__patience": 1,
            "training__ema": None,
        },
    ),
    "sgd with momentum, cosine restarts, no accumulation": (
        "people",
        {
            "optimizer": {"name": "sgd", "lr": 0.05, "nesterov": True},
            "schedule": {"name": "restarts", "T_0": 1},
            "training__accumulate": 1,
            "training__batch_size": 12,
        },
    ),
    "mixup and CutMix, five target types, learned weights, a frozen first epoch": (
        "many",
        {"data__mixup": 0.4, "data__cutmix": 1.0, "data__mix_share": 0.9},
    ),
    "LDAM with deferred weights, whole queries": (
        "many",
        {
            "loss": {"name": "ldam", "class_weights": "inverse", "weights_from_epoch": 2},
            "targets__ranked": RANKED,
            "selection__metric": "ranked.ndcg",
        },
    ),
}


def resume_anywhere(most: int = 0, names: list[str] | None = None, sabotage: str = "") -> dict[str, Any]:
    """Every first stop with every later second one, between two updates and between two micro-batches, by a signal
    and by kill -9, for every config; with `most` only so many a config. See `Count.as_dict`."""
    trials.no_core_files()
    trials.SABOTAGE[:] = [sabotage] if sabotage else []
    count, board = Count(), Board()
    for name in names or list(CONFIGS):
        folder = trials.scratch_folder()
        try:
            there = _scene(folder, board, *CONFIGS[name])
            last = _updates(there.whole)
            stops = list(itertools.combinations(range(1, last + 1), 2))
            cases = [(first, second, how) for first, second in stops for how in ("signal", "inside", "kill")]
            for first, second, how in cases[:: max(1, len(cases) // most)] if most else cases:
                problem = _stopped_twice(there, board, (first, second), how)
                count.add(not problem, f"{name} ({how})", f"stops after {first} and {second}: {problem}")
            count.notes[f"updates, {name}"] = last
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def sabotaged(names: list[str]) -> dict[str, dict[str, Any]]:
    """Two pairs of stops of the first config without each of these protections."""
    return {name: resume_anywhere(2, list(CONFIGS)[:1], name) for name in names}


def _scene(folder: Path, board: Board, kind: str, changes: dict[str, Any]) -> Scene:
    if kind == "people":
        return trials.scene(folder, board, **changes)
    from tests.helpers.scenes import MANY, many_table, write_config

    many_table(folder)
    values = {
        "training__threads": 1,
        "training__checkpoint_updates": 3,
        "report": {"baselines": False, "resamples": 10},
        **changes,
    }
    config = write_config(folder, MANY, **values)
    code = trials.run(["train", config, "--run", folder / "whole", "--quiet"], board, folder / "whole.txt")
    assert code == 0, (folder / "whole.txt").read_text()
    return Scene(folder, config, folder / "whole", board.counts)


def _updates(run: Path) -> int:
    import json

    return int(json.loads((run / "status.json").read_text())["update"])


def stop_at(update: int, how: str) -> Callable[[], None]:
    """A hook for the child: a signal after that update, inside its window, or a kill right after it."""

    def prepare() -> None:
        from classwise.training import loop
        from classwise.training.state import Progress

        end_update, seed = Progress.end_update, loop.seed_dropout

        def ended(progress: Progress, loss: float, samples: int) -> None:
            end_update(progress, loss, samples)
            if progress.update == update and how != "inside":
                os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)

        def seeded(settings: Any, number: int, place: int, part: int) -> None:
            if number == update - 1 and place == part == 0 and how == "inside":
                os.kill(os.getpid(), signal.SIGTERM)
            seed(settings, number, place, part)

        Progress.end_update = ended  # type: ignore[method-assign]
        loop.seed_dropout = seeded  # type: ignore[assignment]

    return prepare


def _stopped_twice(there: Scene, board: Board, stops: tuple[int, int], how: str) -> str:
    run, out = there.folder / "run", there.folder / "run.txt"
    shutil.rmtree(run, ignore_errors=True)
    out.unlink(missing_ok=True)
    arguments = ["train", there.config, "--run", run, "--quiet"]
    for stop in stops:
        code = trials.run(arguments, board, out, prepare=stop_at(stop, how))
        if code != (-signal.SIGKILL if how == "kill" else 75):
            return f"ended with {code} at update {stop}: {out.read_text()[-300:]}"
        arguments = ["resume", run, "--quiet"]
    code = trials.run(arguments, board, out)
    return f"ended with {code}: {out.read_text()[-300:]}" if code != 0 else differences(there.whole, run)


FIGURES = [
    Figure(
        1,
        "resume-any-update",
        "runs stopped after one update and, resumed, after another: all pairs of two epochs, five configs, by signal"
        " between updates and inside windows, and by kill",
        lambda: count_of(trials.in_a_fresh_process("resumes", "resume_anywhere")),
    )
]
