"""A comparison as text: the cells of its table, and how to read it."""

from collections.abc import Sequence

from classwise.compare.stats import ALPHA, POWER, Difference, Estimate, Summary
from classwise.metrics.names import split_metric
from classwise.report.names import metric_name, number_text

MOST_DIGITS = 9  # decimals, where a report would write 1.2e−05: a column has no room for exponents
HEADER = (
    "variant",
    "n",
    "mean",
    "sd",
    "95% CI",
    "difference",
    "95% CI",
    "detectable",
    "p",
    "Holm p",
    "verdict",
)
P_COLUMN = HEADER.index("p")
HOLM_COLUMN = HEADER.index("Holm p")


def shown(name: str) -> str:
    """`name` for display: a � in place of every character that is invisible or would control a terminal."""
    return "".join(char if char.isprintable() else "�" for char in name)


def digits_for(summary: Sequence[Summary], metric: str) -> int:
    """Decimals for all numbers of a comparison: as many as the largest mean is written with."""
    largest = max((abs(row.score.mean) for row in summary if row.score), default=0.0)
    text = number_text(metric, largest)
    return MOST_DIGITS if "e" in text else len(text.partition(".")[2])


def table(summary: Sequence[Summary], digits: int) -> list[list[str]]:
    """The rows below HEADER, as text."""
    return [
        [shown(row.variant), *_score_cells(row.score, digits), *_difference_cells(row.difference, digits)]
        for row in summary
    ]


def columns_to_show(rows: Sequence[Sequence[str]]) -> list[int]:
    """The indices of the columns with content. Of a single p-value Holm's adjustment is left out: it is the same."""
    always = range(3)
    filled = [column for column in range(len(HEADER)) if column in always or any(row[column] for row in rows)]
    several_p = sum(bool(row[P_COLUMN]) for row in rows) > 1
    return [column for column in filled if several_p or column != HOLM_COLUMN]


def direction(higher: bool) -> str:
    """Which way the score is better."""
    return "higher is better" if higher else "lower is better"


def p_text(p: float) -> str:
    """Three decimals, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def score_name(metric: str) -> str:
    """`age.macro_f1` as `macro F1 of age`."""
    target, key = split_metric(metric)
    return f"{metric_name(key)} of {shown(target)}" if target else metric_name(key)


def fixed(value: float, digits: int) -> str:
    """`value` with so many decimals and a real minus sign."""
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """As `fixed`, always with a sign: + or −, or ± where the value is rounded to 0."""
    text = f"{value:+,.{digits}f}"
    is_zero = float(text.replace(",", "")) == 0
    return ("±" + text[1:] if is_zero else text).replace("-", "−")


def _margin_text(margin: float | None, tested: int) -> str:
    """What equivalent means."""
    if margin is None:
        return "No difference is called too small to matter, since this score has no usual margin: --margin gives one."
    adjusted = ", by Holm’s method where there are several" if tested > 1 else ""
    return (
        f"The verdict is equivalent (green) where the difference is certainly smaller than the margin of {margin:g}"
        f" (--margin): two one-sided tests at {ALPHA:.0%}{adjusted}, so the 90% interval lies within ±{margin:g}. It"
        " takes precedence: a difference may be significant and yet too small to matter."
    )


def _score_cells(score: Estimate | None, digits: int) -> list[str]:
    """n, mean, sd, interval."""
    if score is None:
        return ["0", "", "", ""]
    sd = "" if score.sd is None else fixed(score.sd, digits)
    interval = ""
    if score.interval is not None:
        low, high = (fixed(end, digits) for end in score.interval)
        interval = f"[{low}, {high}]"
    return [str(score.n), fixed(score.mean, digits), sd, interval]


def _difference_cells(difference: Difference | None, digits: int) -> list[str]:
    """Mean difference, interval, what was detectable, p, Holm's p, verdict."""
    if difference is None:
        return [""] * 6
    interval = ""
    if difference.interval is not None:
        low, high = (signed(end, digits) for end in difference.interval)
        interval = f"[{low}, {high}]"
    detectable = "" if difference.detectable is None else fixed(difference.detectable, digits)
    p_values = ["" if p is None else p_text(p) for p in (difference.p, difference.p_holm)]
    verdict = "" if difference.p is None else difference.verdict
    return [signed(difference.mean, digits), interval, detectable, *p_values, verdict]


def power_text(summary: Sequence[Summary], digits: int) -> str:
    """What the comparison could have shown, for the terminal; empty where nothing was tested."""
    found = [row.difference.detectable for row in summary if row.difference and row.difference.detectable]
    if not found:
        return ""
    sizes = list(dict.fromkeys(fixed(size, digits) for size in (min(found), max(found))))
    which = f"{sizes[0]} to {sizes[1]}, depending on the variant," if len(sizes) > 1 else sizes[0]
    undecided = any(row.difference and row.difference.verdict == "undecided" for row in summary)
    more = "; undecided does not mean equal" if undecided else ""
    share = f"{POWER:.0%} of such comparisons"
    return f"a true difference of {which} would be found in {share}, a smaller one less often{more}"


def reading(summary: Sequence[Summary], higher: bool, margin: float | None) -> list[str]:
    """How to read the table and the chart: a paragraph on everything that they contain."""
    differences = [row.difference for row in summary if row.difference]
    tested = [difference for difference in differences if difference.p is not None]
    text = [
        "Each seed determines the split, the initial weights, the order of the rows and the augmentation. The mean and"
        " the standard deviation (sd) are taken over the seeds; small dots in the chart are single runs.",
    ]
    if any(row.score and row.score.interval for row in summary):
        text.append(
            "The 95% confidence interval (CI) of a mean shows how far this mean may be from what the variant scores on"
            " very many rows and seeds. Seeds share rows, so their scores are not independent; the interval is as much"
            " wider. The intervals of two variants may overlap although their difference is significant, because the"
            " variants share their splits."
        )
    if differences:
        text.append(
            f"A difference is the variant minus {shown(summary[0].variant)}, paired by seed, so that the difficulty of"
            f" each split cancels out. For this metric, {direction(higher)}."
        )
    if tested:
        text.append(
            "p is the p-value of a two-sided paired t-test, corrected for the rows that the seeds share: the"
            " probability of a difference at least this large if the variants were equally good. The verdict is better"
            f" or worse (blue or orange in the chart) where {'Holm’s p' if len(tested) > 1 else 'p'} is below {ALPHA}."
        )
        text.append(_margin_text(margin, len(tested)))
        text.append(
            "Undecided (gray) means that nothing was shown, not that the variants are equal. Detectable is what this"
            f" comparison could have shown: a true difference of that size is found in {POWER:.0%} of such comparisons,"
            " a smaller one mostly is not. More seeds help at first, more scored rows help always."
        )
    if any(difference.pairs == 1 and difference.interval for difference in differences):
        text.append(
            "With a single seed, the interval of a difference holds for the two trained models on other rows. Another"
            " seed would change the models, so it says nothing about the variants, and there is no verdict."
        )
    if len(tested) > 1:
        text.append(
            f"With {len(tested)} differences, one p below {ALPHA} can easily occur by chance. Holm’s p corrects for"
            " that: rely on it rather than on p. The chart uses Holm’s p."
        )
    if any(difference.pairs > 1 and difference.p is None for difference in differences):
        text.append(
            "A difference that is the same for every seed has no variance to test against, and therefore no p-value."
        )
    return text
