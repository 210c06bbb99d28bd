"""The page's section on folds: the score of each and their spread, and the rows of each class in each fold."""

from dataclasses import dataclass

from classwise.report.decisions import DecisionSection, decision_section
from classwise.report.headline import Best
from classwise.report.kinds import MOST_CLASSES
from classwise.report.names import number_text
from classwise.report.read import Json, RunFiles, count, kind_of, listing, mapping, number


@dataclass(frozen=True)
class FoldRow:
    """One model: its fold, its seed, the rows that it was scored on, its epoch and score, or what became of it."""

    fold: int
    seed: str
    rows: int
    epoch: str
    score: str
    state: str
    message: str


@dataclass(frozen=True)
class ClassFolds:
    """The rows of each class of a target in each fold: `rows` are (label, counts, sum)."""

    title: str
    rows: list[tuple[str, list[int], int]]
    shown_of: int  # how many classes there are


@dataclass(frozen=True)
class FoldsSection:
    """All that the section shows; `chosen`: whether a fold's own rows have chosen its model."""

    count: int
    models: int
    rows: int
    done: int
    runs: list[FoldRow]
    spread: str
    classes: list[ClassFolds]
    decision: DecisionSection | None
    chosen: bool


def folds_section(run: RunFiles, best: Best) -> FoldsSection | None:
    """None where the directory is a run's own."""
    if not run.is_folds:
        return None
    states = [mapping(entry) for entry in listing(run.status.get("folds"))]
    scores = {str(entry.get("folder")): entry for entry in map(mapping, listing(run.metrics.get("per_fold")))}
    runs = [_fold_row(state, scores.get(str(state.get("folder")), {}), best) for state in states]
    return FoldsSection(
        count=len({row.fold for row in runs}),
        models=len(runs),
        rows=count(mapping(run.status.get("data")).get("train")),
        done=count(run.status.get("done")),
        runs=runs,
        spread=_spread_text(mapping(run.metrics.get("spread")), best),
        classes=_classes(run),
        decision=decision_section(run),
        chosen=run.decision.get("own_rows_chose") is not False,
    )


def _fold_row(state: Json, scores: Json, best: Best) -> FoldRow:
    value, epoch = number(scores.get("value")), number(scores.get("epoch"))
    return FoldRow(
        fold=count(state.get("fold")),
        seed=str(state.get("seed", "")),
        rows=count(scores.get("samples")),
        epoch="" if epoch is None else f"{epoch:.0f}" if epoch else "first answer",
        score="" if value is None else number_text(best.key, value),
        state=str(state.get("state") or ""),
        message=str(state.get("message") or ""),
    )


def _spread_text(spread: Json, best: Best) -> str:
    """`mean 0.71, standard deviation 0.02, 0.68 to 0.74`; empty where it is not recorded."""
    found = {key: number(spread.get(key)) for key in ("mean", "std", "lowest", "highest")}
    if None in found.values():
        return ""
    texts = {key: number_text(best.key, value) for key, value in found.items() if value is not None}
    return f"mean {texts['mean']}, standard deviation {texts['std']}, {texts['lowest']} to {texts['highest']}"


def _classes(run: RunFiles) -> list[ClassFolds]:
    """For each target with classes, those with the fewest rows first."""
    table = run.predictions
    found = []
    for name in mapping(run.config.get("targets")):
        column = f"{name}_true"
        if kind_of(run, name) not in ("class", "ordinal") or not {column, "fold"} <= set(table.columns):
            continue
        folds = sorted({int(fold) for fold in table["fold"].drop_nulls().to_list()})
        counted = table.drop_nulls(column).group_by(column, "fold").len()
        counts: dict[str, dict[int, int]] = {}
        for label, fold, rows in counted.iter_rows():
            counts.setdefault(str(label), {})[int(fold)] = rows
        rows = [
            (label, [by.get(fold, 0) for fold in folds], sum(by.values())) for label, by in counts.items()
        ]
        rows.sort(key=lambda row: (row[2], row[0]))
        found.append(ClassFolds(name, rows[:MOST_CLASSES], len(rows)))
    return found
