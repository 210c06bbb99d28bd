"""Single scores and intervals as text, and text cut to the columns of a terminal."""

import unicodedata
from collections.abc import Sequence

NO_INTERVAL = "—"
"""In place of an interval that is withheld."""
_WITH_UNIT = ("mae", "mse", "rmse")


def score_text(name: str, value: float, interval: list[float] | None = None, withheld: bool = False) -> str:
    """A score, and its interval if any. Scores in the user's unit have four significant digits."""
    has_unit = name in _WITH_UNIT
    text = _four_digits(value) if has_unit else f"{value:.4f}"
    if interval is None:
        return f"{text} [{NO_INTERVAL}]" if withheld else text
    low, high = (_four_digits(end) if has_unit else f"{end:.3f}" for end in interval)
    return f"{text} [{low}, {high}]"


def short_interval(ends: Sequence[float]) -> str:
    """`[.51, 1.0]`: an interval of a share between 0 and 1, with two decimals and no 0 before them."""
    texts = (f"{end:.2f}" for end in ends)
    return f"[{', '.join(text[1:] if text.startswith('0') else text[:3] for text in texts)}]"


def _four_digits(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")


def display_width(text: str) -> int:
    """The number of columns on a terminal, where East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def cut(text: str, width: int) -> str:
    """`text` if it has at most `width` columns, else its beginning and `…`."""
    if display_width(text) <= width:
        return text
    while display_width(text) > width - 1:
        text = text[:-1]
    return text + "…"
