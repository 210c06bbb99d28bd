"""Which names of labels are levels of a scale: sure for words and grades, possible for numbers, else none."""

import random

import pytest

from classwise.suggest.ordered import SCALES, ordered_labels

SURE = [
    ["low", "mid", "high"],
    ["Low", "Medium", "High"],
    ["very low", "low", "medium", "high", "very_high"],
    ["none", "mild", "moderate", "severe"],
    ["normal", "mild", "severe"],
    ["No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"],
    ["small", "medium", "large"],
    ["XS", "Small", "Medium", "Large", "XL"],
    ["poor", "fair", "good", "excellent"],
    ["never", "rarely", "sometimes", "often", "always"],
    ["strongly disagree", "disagree", "neutral", "agree", "strongly agree"],
    ["unripe", "ripe", "overripe"],
    ["risk_low", "risk_medium", "risk_high"],
    ["low-risk", "medium-risk", "high-risk"],
    ["grade 1", "grade 2", "grade 3", "grade 4", "grade 5"],
    ["Grade1", "Grade2", "Grade10"],
    ["KL grade 0", "KL grade 1", "KL grade 2"],
    ["stage I", "stage II", "stage III", "stage IV"],
    ["Stage_Ia", "Stage_Ib", "Stage_II"],
    ["level-8", "level-9", "level-10"],
    ["1 star", "2 stars", "3 stars"],
    ["BI-RADS 2", "BI-RADS 3", "BI-RADS 4a", "BI-RADS 4b"],
]
UNSURE = [
    ["0", "1", "2", "3", "4"],
    ["1", "2", "3", "4", "5"],
    ["2", "10", "30"],
    ["I", "II", "III", "IV", "V"],
]
NONE = [
    ["A", "B", "C"],
    ["a", "b", "c", "d"],
    ["cat", "dog", "bird"],
    ["low", "high"],  # two classes have no more order than any other two
    ["grade 1", "grade 2"],
    ["low", "medium", "high", "unknown"],
    ["low", "Low", "high"],  # one name written in two ways
    ["mid", "middle", "high"],  # two words for one level
    ["small", "moderate", "severe"],  # of two scales
    ["class 1", "class 2", "class 3"],
    ["type I", "type II", "type III"],
    ["grade 1", "stage 2", "level 3"],
    ["grade 1", "grade 01", "grade 2"],
    ["1", "II", "3"],
    ["1", "01", "2"],
    ["1.5", "2.5", "3.5"],
    ["-1", "0", "1"],
    [str(number) for number in range(11)],  # codes rather than levels
    ["early blight", "late blight", "healthy"],
    ["S", "M", "L"],  # letters
    ["positive", "neutral", "negative"],
    [],
]


@pytest.mark.parametrize(("labels", "sure"), [(s, True) for s in SURE] + [(u, False) for u in UNSURE])
def test_levels_are_put_in_order(labels: list[str], sure: bool) -> None:
    """From the lowest to the highest, spelled as they were, whatever order they come in."""
    for seed in range(3):
        shuffled = random.Random(seed).sample(labels, len(labels))
        assert ordered_labels(shuffled) == (labels, sure)


@pytest.mark.parametrize("labels", NONE)
def test_other_names_have_no_order(labels: list[str]) -> None:
    """Letters, animals, two labels, labels of which one is on no scale, and numbers that are no levels."""
    assert ordered_labels(labels) is None


def test_no_scale_has_a_word_twice() -> None:
    """A word on two levels of one scale would have the higher one."""
    for scale in SCALES:
        words = [word for level in scale for word in level]
        assert len(set(words)) == len(words)
        assert words == [word.casefold() for word in words]
