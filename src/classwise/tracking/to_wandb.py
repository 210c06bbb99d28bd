"""A run of Weights & Biases, online or offline. Where it goes is its own to say: WANDB_MODE, WANDB_PROJECT,
WANDB_ENTITY, WANDB_API_KEY and the other variables; without WANDB_DIR its files are in RUN/wandb."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from classwise.tracking.facts import Ending, Point, RunFacts

PROJECT = "classwise"


class WandbRun:
    """One run; `run_id` names one that is there already, and goes on."""

    def __init__(self, facts: RunFacts, run_id: str | None, remember: Callable[..., None]) -> None:
        import wandb

        # What the variables say is not given here, or it would win over them.
        defaults = {
            "project": ("WANDB_PROJECT", PROJECT),
            "name": ("WANDB_NAME", facts.name),
            "group": ("WANDB_RUN_GROUP", facts.group or None),
            "dir": ("WANDB_DIR", facts.folder),
        }
        given: dict[str, Any] = {
            key: value for key, (variable, value) in defaults.items() if not os.environ.get(variable)
        }
        self._wandb = wandb
        self._run = wandb.init(
            **given,
            id=run_id,
            resume="allow" if run_id else None,
            config={**facts.parameters, **facts.tags},
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        remember(run_id=self._run.id)
        self.where = self._run.url or f"wandb sync {Path(self._run.dir).parent}"
        if run_id is None:
            for file in facts.files:
                self._run.save(file, base_path=str(Path(file).parent), policy="now")

    def log(self, points: Sequence[Point]) -> None:
        """A row of the history a point, at its step."""
        for point in points:
            self._run.log({**point.values, "update": point.step}, step=point.step, commit=True)

    def finish(self, ending: Ending) -> None:
        """The final scores as the summary, the images of confusion, the report and the model."""
        wandb, run = self._wandb, self._run
        confusion_images = {name: wandb.Image(path) for name, path in ending.confusion_images.items()}
        if confusion_images:
            run.log(confusion_images, step=ending.step + 1, commit=True)
        run.summary.update({**ending.scores, "state": ending.state})
        for file in ending.files:
            run.save(file, base_path=str(Path(file).parent), policy="now")
        if ending.model:
            artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=ending.scores)
            for file in ending.model:
                # Not copied: the checkpoint does not change any more.
                artifact.add_file(file, policy="immutable", skip_cache=True)
            run.log_artifact(artifact)
        run.finish(exit_code=0 if ending.is_done else 1)


def open_wandb(facts: RunFacts, memory: dict[str, Any], keep: int, remember: Callable[..., None]) -> WandbRun:
    """A new run, or the one that is remembered."""
    return WandbRun(facts, memory.get("run_id"), remember)
