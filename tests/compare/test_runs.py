"""Finished runs side by side: rows paired by id, differences on the same resamples, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from classwise.compare import RunComparison, compare_runs
from classwise.compare.resamples import RESAMPLES, SEED
from classwise.errors import CheckpointError, ConfigError, DataError
from classwise.metrics.bootstrap import resampled_weights
from tests.helpers.scenes import (
    MANY,
    PEOPLE,
    command,
    many_table,
    people_table,
    plain_table,
    untouched,
    write_config,
)

LABELS = ["cat", "dog", "eel"]
ROWS = 60
TRUTH = [LABELS[k] for k in np.random.default_rng(0).choice(3, ROWS, p=[0.6, 0.3, 0.1])]
IDS = [f"{row:03}.png" for row in range(ROWS)]


def answers(seed: int, hits: float) -> list[str]:
    """An answer for each row, right in about so many."""
    rng = np.random.default_rng(seed)
    return [true if rng.random() < hits else LABELS[rng.integers(3)] for true in TRUTH]


def write_run(
    folder: Path,
    predicted: Sequence[str],
    ids: Sequence[str] = IDS,
    truth: Sequence[str] = TRUTH,
    train: Sequence[str] = ("t.png",),
    groups: Sequence[str] | None = None,
    contents: Sequence[str] | None = None,
    labels: Sequence[str] = LABELS,
    file: str = "predictions.csv",
    **status: Any,
) -> Path:
    """The files of a finished run that are compared; its probabilities are 0.8 for the answer."""
    folder.mkdir(exist_ok=True)
    ended = {"state": "finished", "reason": "", "epoch": 5}
    (folder / "status.json").write_text(json.dumps(ended | status))
    (folder / "config.toml").write_text('[targets.animal]\ncolumn = "animal"\n')
    scores = {"type": "class", "labels": list(labels)}
    metrics = {"metric": "macro_f1", "value": 0.5, "epoch": 3, "targets": {"animal": scores}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rest = 0.2 / (len(labels) - 1)
    columns: dict[str, Any] = {"id": list(ids), "animal": list(predicted), "animal_true": list(truth)}
    columns |= {f"animal_p_{k}": [0.8 if k == answer else rest for answer in predicted] for k in labels}
    pl.DataFrame(columns).write_csv(folder / file)
    split = "test" if "test" in file else "valid"
    rows = pl.DataFrame(
        {
            "id": [*train, *ids],
            "group": [None] * (len(train) + len(ids)) if groups is None else ["t"] * len(train) + [*groups],
            "split": ["train"] * len(train) + [split] * len(ids),
            "content": [f"c{id}" for id in train] + list(contents or [f"c{id}" for id in ids]),
        },
        schema={"id": pl.String, "group": pl.String, "split": pl.String, "content": pl.String},
    )
    rows.write_csv(folder / "split.csv")
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs on the same rows, in another order."""
    order = np.random.default_rng(1).permutation(ROWS)
    second = answers(2, 0.9)
    write_run(tmp_path / "a", answers(1, 0.6))
    write_run(
        tmp_path / "b",
        [second[row] for row in order],
        ids=[IDS[row] for row in order],
        truth=[TRUTH[row] for row in order],
    )
    return [tmp_path / "a", tmp_path / "b"]


def score(found: RunComparison, name: str) -> Any:
    return next(row for row in found.targets[0].scores if row.metric == name)


def test_scores_and_their_difference_are_those_of_scikit_learn(pair: list[Path]) -> None:
    """Rows are paired by id: the second run has them in another order."""
    found = compare_runs(pair)
    first, second = answers(1, 0.6), answers(2, 0.9)
    accuracy = score(found, "accuracy")
    assert accuracy.values == [accuracy_score(TRUTH, first), accuracy_score(TRUTH, second)]
    macro = [f1_score(TRUTH, one, labels=LABELS, average="macro") for one in (first, second)]
    assert score(found, "macro_f1").values == pytest.approx(macro, abs=1e-12)
    assert score(found, "macro_f1").differences[0].value == pytest.approx(macro[1] - macro[0], abs=1e-12)
    assert (found.rows, found.targets[0].units) == (ROWS, ROWS)


def test_the_interval_is_that_of_paired_resamples(pair: list[Path]) -> None:
    """By hand: the same rows drawn for both, and the percentiles of the differences."""
    change_N = np.array(answers(2, 0.9)) == np.array(TRUTH)
    change_N = change_N.astype(float) - (np.array(answers(1, 0.6)) == np.array(TRUTH))
    draws = [weights.T @ change_N / ROWS for weights in resampled_weights(ROWS, SEED, RESAMPLES)]
    low, high = np.percentile(np.concatenate(draws), (2.5, 97.5))
    difference = score(compare_runs(pair), "accuracy").differences[0]
    assert difference.interval == pytest.approx((low, high), abs=1e-12)
    assert difference.is_clear


def test_rows_that_change_sides_have_mcnemars_exact_p(pair: list[Path]) -> None:
    first, second = answers(1, 0.6), answers(2, 0.9)
    rows = list(zip(IDS, TRUTH, first, second, strict=True))
    sides = compare_runs(pair).targets[0].sides[0]
    assert sides.lost == [id for id, true, a, b in rows if a == true != b]
    assert sides.gained == [id for id, true, a, b in rows if b == true != a]
    assert sides.both_right + sides.both_wrong + len(sides.lost) + len(sides.gained) == ROWS
    changed = len(sides.lost) + len(sides.gained)
    expected = min(1.0, 2 * binom.cdf(min(len(sides.lost), len(sides.gained)), changed, 0.5))
    assert sides.p == pytest.approx(expected)


def test_classes_come_rarest_first_and_too_few_rows_have_no_interval(pair: list[Path]) -> None:
    classes = compare_runs(pair).targets[0].classes
    assert list(dict.fromkeys(row.of for row in classes)) == ["eel", "dog", "cat"]
    assert [row.rows for row in classes[::2]] == sorted(TRUTH.count(label) for label in LABELS)
    recall = next(row for row in classes if row.of == "eel" and row.metric == "recall")
    hits = [
        sum(a == t == "eel" for a, t in zip(one, TRUTH, strict=True))
        for one in (answers(1, 0.6), answers(2, 0.9))
    ]
    assert recall.values == pytest.approx([hit / TRUTH.count("eel") for hit in hits])
    assert recall.differences[0].interval is not None


def test_groups_are_drawn_whole_and_have_no_p(tmp_path: Path) -> None:
    """Ten rows each of six groups are far fewer than sixty rows: no interval below ten groups."""
    groups = [f"g{row // 10}" for row in range(ROWS)]
    runs = [write_run(tmp_path / name, answers(k, 0.7), groups=groups) for k, name in enumerate("ab")]
    few = compare_runs(runs)
    assert few.targets[0].units == 6
    assert score(few, "accuracy").differences[0].interval is None
    assert few.targets[0].sides[0].p is None
    pairs = [f"g{row // 3}" for row in range(ROWS)]
    runs = [write_run(tmp_path / name, answers(k, 0.7), groups=pairs) for k, name in enumerate("ab")]
    some = compare_runs(runs)
    assert some.targets[0].units == 20
    assert score(some, "accuracy").differences[0].interval is not None
    assert some.grouped


def test_a_run_beside_its_copy_differs_in_nothing(pair: list[Path], tmp_path: Path) -> None:
    shutil.copytree(pair[0], tmp_path / "copy")
    found = compare_runs([pair[0], tmp_path / "copy"])
    for row in (*found.targets[0].scores, *found.targets[0].classes):
        assert row.differences[0].value == 0
        assert row.differences[0].interval in (None, (0, 0))
        assert not row.differences[0].is_clear
    assert found.targets[0].sides[0].p is None  # no row has changed sides


def test_three_runs_are_compared_with_the_first(pair: list[Path], tmp_path: Path) -> None:
    third = write_run(tmp_path / "c", answers(3, 0.7))
    found = compare_runs([*pair, third])
    accuracy = score(found, "accuracy")
    assert len(accuracy.values) == 3
    assert [d.value for d in accuracy.differences] == [
        pytest.approx(value - accuracy.values[0]) for value in accuracy.values[1:]
    ]


def test_only_common_rows_are_compared_and_the_others_counted(pair: list[Path], tmp_path: Path) -> None:
    """Forty rows are common; of the twenty others, five were training rows of the second run."""
    write_run(pair[1], answers(2, 0.9)[:40], ids=IDS[:40], truth=TRUTH[:40], train=IDS[55:])
    found = compare_runs(pair)
    assert found.rows == 40
    text = "a: 20 of its 60 rows are left out, which not all runs predict; 5 of them are training rows of b"
    assert text in found.warnings


def test_training_rows_of_the_other_run_are_refused(pair: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "c", ["cat"], ids=["new.png"], truth=["cat"], train=IDS)
    with pytest.raises(DataError, match=r"60 of the first are training rows of c \(its split.csv\)"):
        compare_runs([pair[0], other])
    strange = write_run(tmp_path / "d", ["cat"], ids=["new.png"], truth=["cat"])
    with pytest.raises(DataError, match="rows are paired by id, and their ids differ"):
        compare_runs([pair[0], strange])


def test_the_same_id_with_another_image_or_label_is_left_out(pair: list[Path], tmp_path: Path) -> None:
    contents = [f"c{id}" for id in IDS]
    contents[7] = "another image"
    truth = list(TRUTH)
    truth[9] = next(label for label in LABELS if label != truth[9])
    changed = write_run(tmp_path / "c", answers(2, 0.9), truth=truth, contents=contents)
    found = compare_runs([pair[0], changed])
    assert (found.rows, found.targets[0].rows) == (59, 58)
    assert f"1 row has the same id but another image, such as {IDS[7]}: left out" in found.warnings
    assert "animal: 1 row is left out, whose true labels differ between the runs" in found.warnings


def test_other_labels_are_not_compared(pair: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "c", answers(2, 0.9), labels=[*LABELS, "fox"])
    with pytest.raises(DataError, match="its labels, or their order, are not the same in all runs"):
        compare_runs([pair[0], other])


def test_the_rows_of_linear_probes_have_chosen_nothing(pair: list[Path]) -> None:
    for run in pair:
        config = (run / "config.toml").read_text(encoding="utf-8")
        (run / "config.toml").write_text(f'{config}\n[training]\nplan = "probe"\n', encoding="utf-8")
    assert not any("chosen the epoch" in text for text in compare_runs(pair).warnings)


def test_test_rows_are_preferred_where_all_runs_have_them(pair: list[Path]) -> None:
    validation = compare_runs(pair)
    assert any("validation rows have chosen the epoch" in text for text in validation.warnings)
    ids = [f"test {id}" for id in IDS[:30]]
    for k, run in enumerate(pair):
        write_run(run, answers(k, 0.8)[:30], ids=ids, truth=TRUTH[:30], file="predictions-test.csv")
    found = compare_runs(pair)
    assert (found.rows, found.what) == (30, "test rows, which chose nothing")
    assert found.warnings == []


def test_a_run_that_is_not_done_is_named(pair: list[Path], tmp_path: Path) -> None:
    write_run(pair[1], answers(2, 0.9), state="interrupted")
    assert any("b: was interrupted, after epoch 5" in text for text in compare_runs(pair).warnings)
    (tmp_path / "c").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no status.json"):
        compare_runs([pair[0], tmp_path / "c"])
    write_run(tmp_path / "c", answers(2, 0.9), state="failed")
    (tmp_path / "c" / "predictions.csv").unlink()
    with pytest.raises(CheckpointError, match=r"found no predictions .* and it is failed"):
        compare_runs([pair[0], tmp_path / "c"])


def test_the_command_prints_writes_a_page_and_changes_no_run(pair: list[Path], tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    with untouched(pair[0]), untouched(pair[1]):
        result = command("compare", *pair, "--out", pages / "ab.html").ok()
    assert "60 validation rows, which no run was trained on" in result.out
    assert "better" in result.out
    assert "classes of animal, rarest first" in result.out
    page = result.path.read_text()
    assert "default-src 'none'" in page
    assert "wrong → right" in page
    again = command("compare", *pair, "--out", pages / "ab.html")
    assert "exists already" in again.err
    command("compare", *pair, "--out", pages / "ab.html", "--force").ok()
    assert result.path.read_text() == page
    found = json.loads(command("compare", *pair, "--json").ok().out)
    assert found["targets"]["animal"]["sides"][0]["gained"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "found one run"),
        (("b", "--seeds", "3"), "--seeds: found with the run"),
        (("b", "--vary", "optimizer.lr=1,2"), "--vary: found with the run"),
        (("b", "--training.epochs", "3"), "--training.epochs: found with the run"),
        (("b", "--out", "page.txt"), "a name that ends in .html"),
        (("a",), "found"),
    ],
)
def test_what_is_for_configs_is_refused_for_runs(
    pair: list[Path], options: tuple[str, ...], message: str
) -> None:
    named = [pair["ab".index(option)] if option in ("a", "b") else option for option in options]
    result = command("compare", pair[0], *named)
    assert result.code == 1
    assert message in result.err


def test_hostile_names_are_text_on_the_page(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    runs = []
    for k, name in enumerate("ab"):
        predicted = [evil if answer == "dog" else answer for answer in answers(k, 0.6)]
        truth = [evil if answer == "dog" else answer for answer in TRUTH]
        ids = [f"{evil}{id}" for id in IDS]
        runs.append(write_run(tmp_path / name, predicted, ids=ids, truth=truth, labels=["cat", evil, "eel"]))
    page = command("compare", *runs, "--out", tmp_path / "page.html").ok().path.read_text()
    assert "<script" not in page
    assert "&lt;script" in page


def test_real_runs_are_compared_and_one_config_needs_a_config(tmp_path: Path) -> None:
    people_table(tmp_path, 12)
    config = write_config(tmp_path, PEOPLE, training__epochs=1, report__baselines=False)
    for name, seed in (("a", 1), ("b", 2)):
        command("train", config, "--run", tmp_path / name, "--optimizer.lr", f"{seed}e-3").ok()
    result = command("compare", tmp_path / "a", tmp_path / "b").ok()
    for target in ("the joint class", "mask", "gender", "age"):
        assert f"classes of {target}" in result.out
    assert "whole groups of rows" in result.out
    plain_table(tmp_path, 16)
    assert "--json: found with a config" in command("compare", config, "--json").err


def test_targets_of_every_type_are_compared(tmp_path: Path) -> None:
    """Runs that are the same but for the number of epochs."""
    many_table(tmp_path, 60)
    quick = {"training__freeze_epochs": 0, "loss__weights_from_epoch": 1, "report__resamples": 0}
    config = write_config(tmp_path, MANY, data__valid=0.5, report__baselines=False, **quick)
    for epochs in (1, 2):
        command("train", config, "--run", tmp_path / str(epochs), "--training.epochs", epochs).ok()
    found = compare_runs([tmp_path / "1", tmp_path / "2"])
    types = {target.name: target.type for target in found.targets}
    assert types == {"label": "class", "level": "ordinal", "tags": "multilabel", "size": "regression"}
    for target in found.targets:
        metrics = [json.loads((tmp_path / k / "metrics.json").read_text())["targets"] for k in "12"]
        for row in target.scores:
            expected = [one[target.name][row.metric] for one in metrics]
            assert row.values == pytest.approx(expected, rel=1e-4, abs=1e-4)
            without = row.metric in ("roc_auc", "average_precision", "calibration_error")
            assert (row.differences[0].interval is None) == without
    assert [len(target.sides) for target in found.targets] == [1, 1, 1, 0]
    command("compare", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "page.html").ok()


def test_one_of_fewer_than_two_is_refused() -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare_runs([])
