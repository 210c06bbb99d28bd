"""The number at the top, its interval, and the baselines beneath it."""

from pathlib import Path

import pytest

from classwise.report.names import higher_is_better, interval_text, metric_name, number_text
from classwise.report.page import write_report
from tests.helpers.browsed import Page
from tests.helpers.fabricated import fabricate_run
from tests.helpers.fabricated_kinds import read, set_baselines, write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_run(tmp_path_factory.mktemp("run"), people=20, epochs=2, images=False)


def ranked_by(run: Path, metric: str, value: float, kind: str = "class") -> None:
    """The run selected by `metric`, whose target (`mask`, where it has one) is of the type `kind`."""
    metrics = read(run, "metrics.json")
    metrics["targets"]["mask"]["type"] = kind
    write(run, "metrics.json", metrics | {"metric": metric, "value": value})


def beneath(run: Path) -> tuple[str, bool]:
    """What the page says of the baselines, and whether it is marked."""
    _, found = Page(write_report(run)).source.split('<p class="baselines', 1)
    style, text = found.split("</p>", 1)[0].split(">", 1)
    return " ".join(text.replace("<b>", "").replace("</b>", "").split()), "unbeaten" in style


def test_baselines_stand_beneath_the_headline(run: Path) -> None:
    """A run that beats both says what they are, without a mark."""
    ranked_by(run, "macro_f1", 0.91)
    set_baselines(run, "joint.macro_f1", 0.06, 0.7)
    words, marked = beneath(run)
    assert words == "Baselines: most frequent class 0.060 · balanced linear probe on pixels 0.700"
    assert not marked


def test_a_run_that_does_not_beat_its_baseline_says_so(run: Path) -> None:
    """The baseline is named in a sentence of its own, and the box is marked."""
    ranked_by(run, "macro_f1", 0.69)
    set_baselines(run, "joint.macro_f1", 0.06, 0.7, on="features")
    words, marked = beneath(run)
    assert "<strong>This run does not beat the balanced linear probe on features.</strong>" in words
    assert marked


@pytest.mark.parametrize(("state", "is_said"), [("running", False), ("silent", False), ("finished", True)])
def test_the_verdict_waits_until_the_run_has_ended(run: Path, state: str, is_said: bool) -> None:
    """In its first epochs hardly any run beats a probe; the baselines stand there already."""
    ranked_by(run, "macro_f1", 0.69)
    set_baselines(run, "joint.macro_f1", 0.06, 0.7)
    status = read(run, "status.json")
    write(run, "status.json", status | {"state": state})
    words, marked = beneath(run)
    write(run, "status.json", status)
    assert ("does not beat" in words, marked) == (is_said, is_said)
    assert "balanced linear probe on pixels 0.700" in words


@pytest.mark.parametrize(
    ("metric", "kind", "value", "most_frequent", "probe", "unbeaten"),
    [
        ("mask.macro_f1", "class", 0.5, 0.5, 0.4, "the most frequent class"),  # as good is not better
        (
            "mask.macro_f1",
            "class",
            0.3,
            0.31,
            0.4,
            "the most frequent class or the balanced linear probe on pixels",
        ),
        ("mask.log_loss", "class", 0.3, 0.4, 0.29, "the balanced linear probe on pixels"),
        ("mask.mae", "regression", 4.0, 13.0, 3.9, "the linear probe on pixels"),
        ("mask.mae", "regression", 4.0, 3.0, 5.0, "the training mean"),
        ("mask.mae", "regression", 4.0, 13.0, 5.0, ""),
        ("mask.r2", "regression", -0.1, 0.0, None, "the training mean"),
        ("mask.quadratic_kappa", "ordinal", -0.1, 0.0, None, "the median level"),
        ("mask.map", "multilabel", 0.2, 0.3, 0.1, "the most frequent labels"),
        ("mask.ndcg", "ranking", 0.5, 0.6, None, "the same score for all rows"),
    ],
)
def test_comparison_knows_the_direction(
    run: Path, metric: str, kind: str, value: float, most_frequent: float, probe: float | None, unbeaten: str
) -> None:
    """Errors have to be lower than a baseline's, scores higher, whatever the target's type."""
    ranked_by(run, metric, value, kind)
    set_baselines(run, metric, most_frequent, probe)
    words, marked = beneath(run)
    assert marked == bool(unbeaten)
    assert (f"This run does not beat {unbeaten}." in words) == bool(unbeaten)
    assert ("linear probe" in words) == (probe is not None)


def test_baselines_of_another_metric_are_not_compared(run: Path) -> None:
    """Where the baselines are another metric's or another target's, the page says whose and marks nothing."""
    ranked_by(run, "macro_f1", 0.5)
    for metric, whose in (
        ("joint.accuracy", "accuracy of mask × gender × age"),
        ("age.macro_f1", "macro F1 of age"),
    ):
        set_baselines(run, metric, 0.8, 0.9)
        words, marked = beneath(run)
        assert f"Baselines (<bdi>{whose}</bdi>): most frequent class 0.800" in words
        assert not marked


def test_baselines_without_a_score(tmp_path: Path) -> None:
    """A run stopped before its first score shows what it will have to beat."""
    run = fabricate_run(tmp_path, people=10, epochs=1, images=False, metrics=False)
    write(run, "status.json", read(run, "status.json") | {"best": None})
    set_baselines(run, "joint.macro_f1", 0.06, None)
    words, marked = beneath(run)
    assert words == "Baselines (<bdi>macro F1 of mask × gender × age</bdi>): most frequent class 0.060"
    assert not marked


def test_interval_stands_beside_the_value(run: Path) -> None:
    """The 95 % interval is that of the headline's own target and metric."""
    metrics = read(run, "metrics.json")
    metrics["joint"]["intervals"] = {"macro_f1": [0.7124, 0.7911], "accuracy": [0.1, 0.2]}
    metrics["targets"]["mask"]["intervals"] = {"macro_f1": [0.3, 0.4]}
    write(run, "metrics.json", metrics | {"metric": "macro_f1", "value": 0.75})
    assert '<p class="value">0.750</p>' in (source := Page(write_report(run)).source)
    assert '<strong>macro F1</strong> <span class="interval">[0.71, 0.79]</span>' in source
    write(run, "metrics.json", metrics | {"metric": "mask.macro_f1", "value": 0.35})
    assert (
        '<strong>macro F1</strong> <span class="interval">[0.30, 0.40]</span>'
        in Page(write_report(run)).source
    )


@pytest.mark.parametrize(
    ("key", "value", "ends", "texts"),
    [
        ("macro_f1", 0.7512, (0.712, 0.791), ("0.751", "[0.71, 0.79]")),
        ("macro_f1", 0.7512, (0.749, 0.754), ("0.751", "[0.749, 0.754]")),  # else both ends were the same
        ("r2", -0.25, (-0.5, 0.01), ("−0.250", "[−0.50, 0.01]")),
        ("age.mae", 5.2341, (5.1, 5.36), ("5.234", "[5.10, 5.36]")),
        ("mse", 33.378, (31.7, 34.71), ("33.38", "[31.7, 34.7]")),
        ("rmse", 81234.6, (80000.2, 90000.0), ("81,235", "[80,000, 90,000]")),
        ("mae", 0.000012345, (0.00001, 0.00002), ("1.23e−05", "[1e−05, 2e−05]")),
        ("mae", 0.0, (0.0, 0.0), ("0.000", "[0.000, 0.000]")),
    ],
)
def test_numbers_as_text(key: str, value: float, ends: tuple[float, float], texts: tuple[str, str]) -> None:
    """Scores have three decimals, errors in the user's unit four digits; intervals one less where that tells."""
    assert (number_text(key, value), interval_text(key, value, ends)) == texts


def test_directions_and_names() -> None:
    """Losses and errors fall; a name that is not ours is shown as it is."""
    falling = ("loss", "log_loss", "age.mae", "mse", "rmse", "mae_levels", "calibration_error")
    assert not any(higher_is_better(key) for key in falling)
    assert all(higher_is_better(key) for key in ("joint.macro_f1", "r2", "quadratic_kappa", "ndcg_at_5"))
    assert metric_name("map", "multilabel") == "mAP"
    assert metric_name("map", "ranking") == "MAP"
    assert metric_name("new_score") == "new_score"


def test_the_choice_of_the_epoch_is_a_sentence(run: Path) -> None:
    """Its first letter is a capital and the others stay as they are; with test rows it ends another sentence."""
    ranked_by(run, "mask.macro_f1", 0.35)
    metrics = read(run, "metrics.json")
    selection = {"epochs": 4, "optimism": None, "reason": "it would take more than 256 MiB"}
    text = (
        "he best of 4 epochs on these rows, so rather too high for other rows; by how much is not estimated"
        " (it would take more than 256 MiB)"
    )
    write(run, "metrics.json", metrics | {"selection": selection})
    assert f"<p>T{text}.</p>" in Page(write_report(run)).source

    scored = {name: metrics[name] for name in ("metric", "value", "samples", "targets")}
    write(run, "metrics.json", metrics | {"selection": selection, "test": scored})
    assert f": t{text}.</p>" in Page(write_report(run)).source
    write(run, "metrics.json", metrics)


def test_the_page_writes_its_own_numbers(run: Path) -> None:
    """Three decimals in the same words as the terminal; values of the wrong kind count as not recorded."""
    ranked_by(run, "mask.log_loss", 0.35)
    metrics = read(run, "metrics.json")
    selection = {"epochs": 4, "optimism": 0.0123, "corrected": 0.3623, "reason": None}
    write(run, "metrics.json", metrics | {"selection": selection})
    words = "The best of 4 epochs on these rows, so about 0.012 too low: expect 0.362 on other rows."
    assert words in Page(write_report(run)).source
    write(run, "metrics.json", metrics | {"selection": selection | {"corrected": "?"}})
    words = "so rather too low for other rows; by how much is not estimated (not recorded)."
    assert words in Page(write_report(run)).source
    write(run, "metrics.json", metrics)
