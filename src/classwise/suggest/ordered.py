"""Whether the names of labels say an order: words such as low, mid, high; grades and stages with a number."""

import re
from collections.abc import Collection, Sequence

LEAST = 3
"""An order of two labels is none."""
MOST_NUMBERS = 10
"""Up to this many integers may be the levels of a scale; more are rather codes of classes, or a number to be
predicted."""

# Each scale from its lowest to its highest level. A level can have several words, of which a source uses one.
SCALES: tuple[tuple[tuple[str, ...], ...], ...] = (
    # amount
    (
        ("none", "zero"), ("very low", "lowest", "verylow"), ("low",), ("medium low",),
        ("mid", "middle", "medium", "moderate", "normal", "average", "intermediate"), ("medium high",), ("high",),
        ("very high", "highest", "veryhigh"), ("extreme",),
    ),
    # severity
    (
        ("none", "no", "absent", "healthy", "normal", "no dr"), ("minimal", "trace"), ("very mild",), ("mild",),
        ("moderate", "medium"), ("severe",),
        ("very severe", "critical", "extreme", "proliferative", "proliferate dr", "proliferative dr"),
    ),
    # size
    (
        ("xxs",), ("xs", "tiny", "very small", "extra small"), ("small",), ("mid", "middle", "medium"),
        ("large", "big"), ("xl", "very large", "extra large", "very big"), ("xxl", "huge"), ("xxxl",),
    ),
    # quality
    (
        ("terrible", "awful"), ("very poor", "very bad"), ("poor", "bad"), ("fair", "average", "ok", "okay", "medium"),
        ("good",), ("very good",), ("excellent", "great"), ("outstanding", "perfect"),
    ),
    # frequency
    (("never",), ("rarely", "seldom"), ("sometimes", "occasionally"), ("often", "usually"), ("always",)),
    # agreement
    (
        ("strongly disagree",), ("disagree",), ("neutral", "neither agree nor disagree"), ("agree",),
        ("strongly agree",),
    ),
    # skill
    (("novice", "beginner"), ("intermediate",), ("advanced",), ("expert",)),
    # age
    (
        ("baby", "infant"), ("toddler",), ("child",), ("teen", "teenager", "adolescent"), ("young adult", "young"),
        ("adult", "middle aged", "middle age"), ("senior", "elderly", "old"),
    ),
    # ripeness
    (
        ("unripe",), ("partially ripe", "half ripe", "semi ripe", "partly ripe", "turning"), ("ripe",),
        ("overripe", "over ripe"), ("rotten",),
    ),
    # doneness
    (("rare",), ("medium rare",), ("medium",), ("medium well",), ("well done",)),
    # time, speed, and what else has a middle
    (("early",), ("mid", "middle", "intermediate"), ("late",)),
    (("slow",), ("medium", "moderate"), ("fast",)),
    (("short",), ("medium", "mid"), ("long", "tall")),
    (("thin", "narrow"), ("medium",), ("thick", "wide")),
    (("light",), ("medium",), ("dark", "heavy")),
    (("easy",), ("medium", "moderate", "normal"), ("hard", "difficult")),
    (("weak",), ("medium", "moderate"), ("strong",), ("very strong",)),
    (("freezing",), ("cold",), ("cool",), ("mild",), ("warm",), ("hot",)),
    (("empty",), ("half", "half full"), ("full",)),
)  # fmt: skip

# With a number, these words (without the s of several) name the levels of one scale: grade 2, stage IIIb, 5 stars.
NUMBERED = (
    "grade", "stage", "level", "severity", "degree", "star", "birad", "bi rad", "isup", "gleason", "tanner",
    "bristol", "fitzpatrick",
)  # fmt: skip
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_WORD_FIRST = re.compile(r"(?P<text>[^\d]*?) ?(?P<number>\d+|[ivx]+)(?P<letter>[a-d]?)")
_NUMBER_FIRST = re.compile(r"(?P<number>\d+)(?P<letter>) ?(?P<text>[^\d]+)")


Ranks = dict[str, tuple[int, str]]
"""By label, its level and the letter of its sub-level (`a` in stage IIa), if any."""


def ordered_labels(labels: Collection[str]) -> tuple[list[str], bool] | None:
    """The labels from the lowest to the highest level, and whether that is sure; None if nothing says an order.

    Sure are the words of one scale, which may share what stands before or after them (`risk_low`, `low risk`), and
    numbers with a word of `NUMBERED`. Bare numbers may be levels as well as names: not sure. Letters are names.
    """
    label_of = {_spaced(label): label for label in labels}
    words = list(label_of)
    if len(words) < max(LEAST, len(labels)):  # too few, or two that differ in nothing but their case
        return None
    sure_ranks = _scale_ranks(words) or _numbered_ranks(words)
    ranks = sure_ranks or _number_ranks(words)
    if ranks is None:
        return None
    return [label_of[word] for word in sorted(words, key=ranks.__getitem__)], sure_ranks is not None


def _spaced(label: str) -> str:
    """In lower case, with one space for whatever separates words."""
    return " ".join(re.split(r"[\s_\-.:/]+", label.casefold())).strip()


def _scale_ranks(words: Sequence[str]) -> Ranks | None:
    """The levels on the first scale that has all of the words, each on a level of its own."""
    bare = _without_shared(words)
    for scale in SCALES:
        level_of = {word: level for level, level_words in enumerate(scale) for word in level_words}
        for candidates in (words, bare):
            levels = [level_of.get(candidate) for candidate in candidates]
            if ranks := _distinct(words, levels):
                return ranks
    return None


def _without_shared(words: Sequence[str]) -> list[str]:
    """The words without those that all of them begin or end with: `low risk`, `high risk` to `low`, `high`."""
    parts = [word.split(" ") for word in words]
    while min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return [" ".join(part) for part in parts]


def _numbered_ranks(words: Sequence[str]) -> Ranks | None:
    """The numbers, if all of them have the same text beside them, which ends with one of `NUMBERED` (`kl grade 2`)."""
    for pattern in (_WORD_FIRST, _NUMBER_FIRST):
        matches = [match for match in map(pattern.fullmatch, words) if match is not None]
        texts = {match["text"].strip().removesuffix("s") for match in matches}
        if len(matches) < len(words) or len(texts) > 1 or not _is_numbered(texts.pop()):
            continue
        numbers = [_number(match["number"]) for match in matches]
        if ranks := _distinct(words, numbers, [match["letter"] for match in matches]):
            return ranks
    return None


def _is_numbered(text: str) -> bool:
    return any(text == word or text.endswith(f" {word}") for word in NUMBERED)


def _number_ranks(words: Sequence[str]) -> Ranks | None:
    """The values, if all are integers or all are Roman numerals, and not too many."""
    roman = [word in ROMAN for word in words]
    if len(words) > MOST_NUMBERS or any(roman) != all(roman):
        return None
    return _distinct(words, [_number(word) for word in words])


def _number(text: str) -> int | None:
    """The value of an integer or of a Roman numeral up to ten; None for other text."""
    if text in ROMAN:
        return ROMAN.index(text) + 1
    return int(text) if re.fullmatch(r"\d+", text, re.ASCII) else None


def _distinct(
    words: Sequence[str], levels: Sequence[int | None], letters: Sequence[str] | None = None
) -> Ranks | None:
    """The levels by word; None unless every word has one, and no two have the same."""
    ranks: Ranks = {
        word: (level, letter)
        for word, level, letter in zip(words, levels, letters or [""] * len(words), strict=True)
        if level is not None
    }
    return ranks if len(set(ranks.values())) == len(words) else None
