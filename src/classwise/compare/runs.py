"""`classwise compare RUN RUN ...`: finished runs side by side, paired by row. Nothing is trained."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classwise.compare.run_rows import FinishedRun, common_rows, read_runs
from classwise.compare.run_scores import TargetScores, as_json, target_scores
from classwise.errors import ConfigError, DataError
from classwise.report.names import shorten


@dataclass(frozen=True)
class RunComparison:
    """Finished runs on the rows that they have in common. `rows`: how many, and `what` they are; `grouped`: whether
    some of them vary together (a group, the same image), so that whole groups are resampled. All differences are those
    from the first run."""

    runs: list[FinishedRun]
    rows: int
    what: str
    grouped: bool
    targets: list[TargetScores]
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "runs": [
                {
                    "name": run.name,
                    "path": str(run.path),
                    "state": run.status.get("state"),
                    "best": _best(run),
                }
                for run in self.runs
            ],
            "rows": self.rows,
            "what": self.what,
            "grouped": self.grouped,
            "warnings": self.warnings,
            "targets": as_json(self.targets),
        }

    def as_json(self) -> str:
        """The text that `--json` prints."""
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False)


def compare_runs(paths: Sequence[str | Path]) -> RunComparison:
    """Compare finished runs, or folds, with the first of them, on the rows that all of them predict and none was
    trained on: test rows where all have some in common, else validation and out-of-fold rows.

    Rows are paired by id; the intervals of differences come from one set of resamples for all runs, of whole groups
    where rows have a group. Raises CheckpointError for what is no run or has no predictions, DataError where no row is
    common, and ConfigError for fewer than two runs.
    """
    if len(paths) < 2:
        raise ConfigError(
            f"compare: found one run, {paths[0] if paths else ''}; allowed: two or more, or a config"
        )
    runs = read_runs([Path(path) for path in paths])
    common = common_rows(runs)
    targets, warnings = target_scores(runs, common)
    if not targets:
        raise DataError(f"nothing to compare: {'; '.join(warnings) or 'the runs have no target in common'}")
    return RunComparison(
        runs=runs,
        rows=len(common.ids),
        what=common.what,
        grouped=common.groups is not None,
        targets=targets,
        warnings=[*common.warnings, *warnings],
    )


def short_names(runs: Sequence[FinishedRun], longest: int = 24) -> list[str]:
    """Names for the heads of columns: cut, where that leaves them different."""
    names = [shorten(run.name, longest) for run in runs]
    return names if len(set(names)) == len(names) else [run.name for run in runs]


def _best(run: FinishedRun) -> dict[str, Any]:
    return {key: run.metrics.get(key) for key in ("metric", "value", "epoch")}
