"""A comparison of finished runs as text, and the cells of its tables, which the page shares."""

from collections.abc import Sequence

from classwise.compare.resamples import RESAMPLES
from classwise.compare.run_scores import JOINT, Difference, ScoreRow, Sides, TargetScores
from classwise.compare.runs import RunComparison, short_names
from classwise.compare.text import p_text, shown, signed
from classwise.metrics.formatting import display_width
from classwise.report.names import CLASS_NAMES, metric_name, number_text

MAIN = ("macro_f1", "balanced_accuracy", "accuracy", "log_loss", "exact_match", "mae", "rmse", "r2")
"""What the terminal shows of each target, as far as it has them; all are on the page and in the JSON."""
MOST_CLASSES = 10  # in the terminal, the rarest
MOST_IDS = 5  # of the rows that changed sides


def text_of(found: RunComparison) -> str:
    """The whole comparison for a terminal."""
    names = short_names(found.runs)
    blocks = [heading(found)]
    blocks.append(_columns(score_table(found, names, MAIN)))
    if any(target.sides for target in found.targets):
        blocks.append(_columns(side_table(found, names)))
    blocks += [_class_block(target, names) for target in found.targets if target.classes]
    return "\n\n".join(blocks)


def heading(found: RunComparison) -> str:
    """What is compared, and how to read the differences."""
    drawn = "whole groups of rows that vary together" if found.grouped else "rows"
    lines = [f"{found.rows} {found.what}"]
    lines += [
        f"{name}: {run.path}, {str(run.status.get('state', '')).replace('_', ' ')}"
        + (f", epoch {run.metrics['epoch']}" if run.metrics.get("epoch") else "")
        for name, run in zip(short_names(found.runs), found.runs, strict=True)
    ]
    lines += [
        f"differences from {short_names(found.runs)[0]}; 95% intervals from {RESAMPLES:,} resamples of {drawn}, the"
        " same for all runs.",
        "better, worse: the interval excludes 0, as one of 20 does by chance alone",
    ]
    return "\n".join(lines)


def score_table(found: RunComparison, names: Sequence[str], keys: Sequence[str] = ()) -> list[list[str]]:
    """The head and a row for each score of each target; `keys`: of these alone."""
    head = ["target", "score", names[0]]
    for name in names[1:]:
        head += [name, "difference", "95% interval"]
    rows = [head]
    for target in found.targets:
        shown_scores = [row for row in target.scores if not keys or row.metric in keys]
        shown_scores.sort(key=lambda row: keys.index(row.metric) if keys else 0)
        for number, row in enumerate(shown_scores):
            title = target_title(target) if number == 0 else ""
            rows.append([title, metric_name(row.metric, target.type), *score_cells(row)])
    return rows


def class_table(target: TargetScores, names: Sequence[str], most: int | None = None) -> list[list[str]]:
    """The head and a row for F1 and recall of each class, rarest first; `most`: so many classes."""
    head = ["class", "rows", "score", names[0]]
    for name in names[1:]:
        head += [name, "difference", "95% interval"]
    rows, labels = [head], list(dict.fromkeys(row.of for row in target.classes))[:most]
    before = ""
    for row in target.classes:
        if row.of not in labels:
            break
        title = [shown(row.of), f"{row.rows:,}"] if row.of != before else ["", ""]
        before = row.of
        rows.append([*title, CLASS_NAMES[row.metric], *score_cells(row)])
    return rows


def side_table(found: RunComparison, names: Sequence[str]) -> list[list[str]]:
    """The head and, for each target and each run but the first, how many rows changed sides."""
    rows = [["target", "run", "both right", "right → wrong", "wrong → right", "both wrong", "p"]]
    for target in found.targets:
        for number, (name, sides) in enumerate(zip(names[1:], target.sides, strict=False)):
            p = "–" if sides.p is None else p_text(sides.p)
            counts = (sides.both_right, len(sides.lost), len(sides.gained), sides.both_wrong)
            rows.append([target_title(target) if number == 0 else "", name, *(f"{n:,}" for n in counts), p])
    return rows


def score_cells(row: ScoreRow) -> list[str]:
    """The first run's value; of each other its value, its difference and the interval of that."""
    cells = [number_text(row.metric, row.values[0])]
    for value, difference in zip(row.values[1:], row.differences, strict=True):
        cells += [number_text(row.metric, value), *_difference_cells(difference, row)]
    return cells


def target_title(target: TargetScores) -> str:
    """The name of the target."""
    return "the joint class" if target.name == JOINT else shown(target.name)


def changed_lines(sides: Sides) -> list[str]:
    """The ids of the rows that changed sides, the first ones."""
    lines = []
    for what, ids in (("right → wrong", sides.lost), ("wrong → right", sides.gained)):
        more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
        if ids:
            lines.append(f"{what}: {', '.join(map(shown, ids[:MOST_IDS]))}{more}")
    return lines


def _difference_cells(difference: Difference, row: ScoreRow) -> list[str]:
    text = number_text(row.metric, abs(difference.value))
    digits = len(text.partition(".")[2]) if "e" not in text else 9
    interval = ""
    if difference.interval is not None:
        low, high = (signed(end, digits) for end in difference.interval)
        interval = f"[{low}, {high}]"
    if difference.is_clear:
        interval += " better" if (difference.value > 0) == row.higher_is_better else " worse"
    return [signed(difference.value, digits), interval]


def _class_block(target: TargetScores, names: Sequence[str]) -> str:
    """The classes of a target, and the rows that changed sides."""
    classes = len({row.of for row in target.classes})
    which = f", the {MOST_CLASSES} rarest of {classes}" if classes > MOST_CLASSES else ", rarest first"
    lines = [f"classes of {target_title(target)}{which}"]
    lines.append(_columns(class_table(target, names, MOST_CLASSES)))
    for name, sides in zip(names[1:], target.sides, strict=False):
        lines += [f"{name}, {line}" for line in changed_lines(sides)]
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Plain columns: the first two left-aligned, numbers right-aligned."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    left = 2 if rows[0][0] == "target" else 1
    lines = []
    for row in rows:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - display_width(cell))
            is_left = index < left or rows[0][index] in ("score", "95% interval")
            cells.append(cell + space if is_left else space + cell)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
