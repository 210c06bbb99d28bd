"""A comparison in words and numbers: the table, and what a reader has to know of it."""

from collections.abc import Sequence

from classwise.compare.stats import Difference, Estimate, Summary
from classwise.report.names import metric_name, number_text

ALPHA = 0.05  # below it, a difference is drawn as one
SMALLEST = 9  # digits after the point where a report would write 1.2e−05: a column has no room for powers
HEADER = ("variant", "n", "mean", "sd", "95 % interval", "difference", "95 % interval", "p", "Holm p")


def shown(name: str) -> str:
    """`name` for people to read: a character that cannot be seen or would steer a terminal becomes a �."""
    return "".join(char if char.isprintable() else "�" for char in name)


def digits_for(summary: Sequence[Summary], metric: str) -> int:
    """Digits after the point for all numbers of a comparison: those that the largest mean is written with."""
    largest = max((abs(row.own.mean) for row in summary if row.own), default=0.0)
    text = number_text(metric, largest)
    return SMALLEST if "e" in text else len(text.partition(".")[2])


def table(summary: Sequence[Summary], digits: int) -> list[list[str]]:
    """The rows below HEADER, as text."""
    return [
        [shown(row.variant), *_own_cells(row.own, digits), *_cells(row.difference, digits)] for row in summary
    ]


def columns_to_show(rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns that say something: of one seed there is no spread, of one difference no Holm's p."""
    holm, p = len(HEADER) - 1, len(HEADER) - 2
    several = sum(bool(row[p]) for row in rows) > 1
    return [
        i for i in range(len(HEADER)) if i < 3 or (any(row[i] for row in rows) and (several or i != holm))
    ]


def direction(higher: bool) -> str:
    """What a reader must know of a score."""
    return "more is better" if higher else "less is better"


def p_text(p: float) -> str:
    """Three decimals; smaller than that is said to be so."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def score_name(metric: str) -> str:
    """`age.macro_f1` as people say it."""
    target, _, key = metric.rpartition(".")
    return f"{metric_name(key)} of {shown(target)}" if target else metric_name(key)


def fixed(value: float, digits: int) -> str:
    """`value` with a real minus."""
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """A difference: its sign is always written."""
    text = f"{value:+,.{digits}f}"
    return ("±" + text[1:] if float(text.replace(",", "")) == 0 else text).replace("-", "−")


def _own_cells(own: Estimate | None, digits: int) -> list[str]:
    if own is None:
        return ["0", "", "", ""]
    sd = "" if own.sd is None else fixed(own.sd, digits)
    ends = "" if own.interval is None else "[" + ", ".join(fixed(end, digits) for end in own.interval) + "]"
    return [str(own.n), fixed(own.mean, digits), sd, ends]


def _cells(d: Difference | None, digits: int) -> list[str]:
    if d is None:
        return ["", "", "", ""]
    ends = "" if d.interval is None else "[" + ", ".join(signed(end, digits) for end in d.interval) + "]"
    return [signed(d.mean, digits), ends, *("" if p is None else p_text(p) for p in (d.p, d.p_holm))]


def reading(summary: Sequence[Summary], higher: bool) -> list[str]:
    """How to read the table and the image, as far as there is something to read."""
    differences = [row.difference for row in summary if row.difference]
    tested = [d for d in differences if d.p is not None]
    text = [
        "A seed decides the split, the first weights, the order of the rows and the augmentation. The mean and the"
        " standard deviation (sd) are over the seeds; small dots in the chart are single runs.",
    ]
    if any(row.own and row.own.interval for row in summary):
        text.append(
            "The 95 % interval of a mean is Student’s: it says how far the mean of so many runs may be from that of"
            " very many. Two variants’ intervals may overlap although their difference is clear, since they share"
            " the splits."
        )
    if differences:
        text.append(
            f"A difference is the variant minus {shown(summary[0].variant)}, seed by seed, so how easy a split is drops"
            f" out. For this score {direction(higher)}."
        )
    if tested:
        text.append(
            "p is that of the two-sided paired t-test: how often chance alone would give a difference at least as"
            " large if there were none. The chart colours a difference, blue for better and orange for worse,"
            f" where {'Holm’s p' if len(tested) > 1 else 'p'} is below {ALPHA}; grey means that these seeds cannot"
            " tell."
        )
    if len(tested) > 1:
        text.append(
            f"With {len(tested)} differences, one of them is easily below {ALPHA} by chance. Holm’s p allows for that:"
            " trust it rather than p. The chart shows Holm’s."
        )
    if any(d.pairs > 1 and d.p is None for d in differences):
        text.append(
            "A difference that is the same with every seed has no spread to be tested by: no p is given."
        )
    return text
