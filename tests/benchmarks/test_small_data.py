"""benchmarks/small_data.py: what is held out, what is measured, what is not repeated, and what its tables say."""

import argparse
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import f1_score

import small_data
from classwise.demo.competition import write_competition
from classwise.errors import DataError
from sidebyside import sets, trainers
from sidebyside.commands import FIRST_ANSWER, predictions_of
from sidebyside.job import Answer, Job, Marks, read_answer, read_job, write_answer, write_job
from sidebyside.measure import FailedError, Measured, Peak, descendants, run_watched, tree_memory
from sidebyside.splits import hold_out, share_of_rows, tile_groups
from sidebyside.tables import Results, Selection, figures_table, gain, set_table


def test_near_duplicates_are_one_group(tmp_path: Path) -> None:
    """Exposures that follow each other, chained; and the same part again, darker, shifted, and much later."""
    rng = np.random.default_rng(1)
    parts = [cv2.resize(rng.integers(60, 200, (24, 24), dtype=np.uint8), (96, 96)) for _ in range(4)]
    images = [parts[0], parts[1], parts[2], parts[3], (np.roll(parts[3], 4, axis=1) * 0.5).astype(np.uint8)]
    frames = [100, 450, 800, 5000, 90000]
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    groups = tile_groups(paths, frames)
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert groups[0] != groups[3]
    # No two of the first four look alike.
    assert len(set(tile_groups(paths[:4], [0, 1000, 2000, 3000]).tolist())) == 4


def test_held_out_are_whole_groups_with_every_class() -> None:
    """About a quarter of every class; other groups with another seed, the same with the same."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 5)
    labels = [f"c{k}" for k in np.repeat(rng.choice(3, 60, p=[0.7, 0.2, 0.1]), 5)]
    found = [hold_out(labels, groups.tolist(), seed) for seed in range(5)]
    for held in found:
        assert not set(groups[held]) & set(groups[~held])
        for label, count in Counter(labels).items():
            assert 0.1 <= sum(np.asarray(labels)[held] == label) / count <= 0.4
    assert len({held.tobytes() for held in found}) == 5
    assert (hold_out(labels, groups.tolist(), 3) == found[3]).all()


def test_a_class_in_one_group_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="every class on both sides"):
        hold_out(["a"] * 8 + ["b"] * 2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8], seed=0)


def test_share_of_rows_keeps_rare_classes() -> None:
    labels = ["a"] * 100 + ["b"] * 9 + ["c"]
    kept = share_of_rows(labels, 0.1, least=2, seed=1)
    assert Counter(labels[i] for i in kept) == {"a": 10, "b": 2, "c": 1}
    assert kept == sorted(set(kept))
    assert kept != share_of_rows(labels, 0.1, least=2, seed=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as that of --data: cells of 40 photographs, with black images."""
    folder = tmp_path / "data" / "cells"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(3)
    rows = [
        {"path": f"images/{i:03d}.jpg", "label": str(rng.choice(["rbc", "wbc"])), "slide": f"s{i // 4}"}
        for i in range(160)
    ]
    image = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes()
    for row in rows:
        (folder / row["path"]).write_bytes(image)
    sets.write_rows(folder / "table.csv", rows)
    return tmp_path / "data"


def test_tables_of_a_split(data: Path, tmp_path: Path) -> None:
    """The test table tells no label, the training table has the group column, and no table is one that `init` takes
    for a test table."""
    made = sets.make_split("cells", 1, tmp_path / "work", data)
    train, test, truth = (sets.read_rows(path) for path in (made.train, made.test, made.truth))
    assert list(train[0]) == ["path", "label", "slide"]
    assert list(test[0]) == ["path"]
    assert [row["path"] for row in test] == [row["path"] for row in truth]
    slides = {row["path"]: row["slide"] for row in sets.read_rows(data / "cells" / "table.csv")}
    assert not {row["slide"] for row in train} & {slides[row["path"]] for row in test}
    assert len(train) + len(test) == 160
    assert all((made.train.parent / row["path"]).is_file() for row in (*train, *test))
    assert made.labels == ("rbc", "wbc")
    assert made.rarest == min(made.labels, key=[row["label"] for row in train].count)
    assert sets.make_split("cells", 1, tmp_path / "work", None) == made


def test_data_in_a_folder_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data"):
        sets.make_split("tiles", 0, tmp_path, None)


def test_clothes_are_the_bundled_ones(tmp_path: Path) -> None:
    """The same rows in every split, and no labeled table of the test beside them but the truth."""
    made = [sets.make_split("clothes", split, tmp_path, None) for split in (0, 1)]
    assert made[0].train.read_bytes() == made[1].train.read_bytes()
    assert Counter(row["label"] for row in sets.read_rows(made[0].train))[made[0].rarest] == 6
    assert len(sets.read_rows(made[0].truth)) == 1000
    assert not any(
        (tmp_path / "clothes" / name).exists() for name in ("test.csv", "train.csv", "template.csv")
    )


def test_jobs_and_answers_travel(tmp_path: Path) -> None:
    job = Job("timm", "a.csv", "b.csv", "w", 96, 3, 1, "out", ("training.plan=probe",), 12.5)
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job
    marks = Marks(started=0.0)
    marks.mark_whole()
    write_answer(marks, ["x"], tmp_path / "answer.json")
    assert read_answer(tmp_path / "answer.json") == Answer(None, marks.whole or 0.0, ["x"])
    marks.mark_first()
    first = marks.first
    marks.mark_first()
    assert marks.first == first


def test_memory_of_the_whole_tree() -> None:
    """Of a process of 64 MB and its child of 128 MB; what both use of a library counts once in the first number."""
    child = "b = b'1' * (128 << 20); print('ready', flush=True); input()"
    parent = (
        f"import subprocess, sys; a = b'1' * (64 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(descendants(process.pid)) == 2
        memory, rss = tree_memory(process.pid)
        process.communicate("\n")
    assert 192 << 20 < memory < rss < 400 << 20


def test_a_process_is_watched(tmp_path: Path) -> None:
    """What it says is in its log."""
    peak = run_watched([sys.executable, "-c", "print(1)"], tmp_path / "log.txt")
    assert 0 < peak.memory <= peak.rss
    assert (tmp_path / "log.txt").read_text() == "1\n"


def test_descendants_of_a_process_that_is_gone() -> None:
    assert descendants(2**22 + 1) == [2**22 + 1]


def test_a_failure_says_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="exit code 3: so it is"):
        run_watched([sys.executable, "-c", "print('so it is'); raise SystemExit(3)"], tmp_path / "log.txt")


def test_the_line_of_the_first_answer() -> None:
    assert FIRST_ANSWER.match("first answer: macro_f1 0.71 after 3.2 s\n")
    assert FIRST_ANSWER.match("  First answer after 3 s")
    assert not FIRST_ANSWER.match("epoch 1: better than the first answer")


def test_predictions_by_id(tmp_path: Path) -> None:
    """Whatever the order of the rows."""
    (tmp_path / "p.csv").write_text("id,label,label_p_x\nb.png,x,0.9\na.png,y,0.1\n")
    assert predictions_of(tmp_path / "p.csv", ["a.png", "b.png"]) == ["y", "x"]


def options_for(work: Path, *more: str) -> argparse.Namespace:
    return small_data.parser().parse_args([str(work), "--only", "cells", "--splits", "2", *more])


def test_finished_cells_are_not_repeated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed ones are; other epochs are other cells of the peers alone, and options of classwise alone."""
    ran: list[str] = []

    def measured(job: Job, log: Path) -> Measured:
        ran.append(f"{job.trainer} {job.seed}")
        if ran == ["classwise 0"]:
            raise FailedError("no room")
        truth = Path(job.test).with_name(Path(job.test).name.replace("test", "truth"))
        return Measured(
            Answer(1.0, 2.0, [row["label"] for row in sets.read_rows(truth)]), 3.0, 4.0, Peak(5_000_000, 6)
        )

    monkeypatch.setattr(small_data, "measure", measured)
    monkeypatch.setattr(small_data, "write_weights", lambda path: None)
    work = tmp_path / "work"
    some = ("--data", str(data), "--trainers", "classwise", "timm")
    assert not small_data.run_all(options_for(work, *some))
    assert ran == ["classwise 0", "timm 0", "timm 1", "classwise 1"]
    assert "failed: no room" in capsys.readouterr().out
    for more, wanted in (
        ((), ["classwise 0"]),
        ((), []),
        (("--epochs", "3"), ["timm 0", "timm 1"]),
        (("--option", "training.plan=probe"), ["classwise 0", "classwise 1"]),
        (("--again", "--splits", "1"), ["classwise 0", "timm 0"]),
    ):
        ran[:] = ["before"]
        assert small_data.run_all(options_for(work, *some, *more))
        assert ran[1:] == wanted
    records = small_data.read_records(work / "results.jsonl")
    assert records[1]["macro_f1"] == 1
    assert {record["trainer"] for record in records} == {"classwise", "classwise training.plan=probe", "timm"}
    small_data.show_tables(options_for(work, *some))
    assert "| classwise | 1.000 |" in capsys.readouterr().out


def test_scores_are_those_of_scikit_learn(tmp_path: Path) -> None:
    """Over the whole list of labels, also one without rows and predictions."""
    truth, predicted = ["a", "b", "a", "b", "b"], ["a", "b", "b", "b", "a"]
    rows = [{"path": str(i), "label": label} for i, label in enumerate(truth)]
    sets.write_rows(tmp_path / "truth.csv", rows)
    path = tmp_path / "truth.csv"
    tables = sets.SetSplit(path, path, path, ("a", "b", "c"), "a")
    found = small_data.scores(tables, predicted)
    wanted = f1_score(truth, predicted, labels=["a", "b", "c"], average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(wanted, abs=1e-12)
    assert found["rarest_f1"] == found["f1"]["a"] == 0.5
    assert found["f1"]["c"] == 0


def record(trainer: str, split: int, f1: float, **more: Any) -> dict[str, Any]:
    own = trainer.startswith("classwise")
    return {
        "set": "tiles",
        "split": split,
        "trainer": trainer,
        "epochs": None if own or trainer == "logistic" else 10,
        "size": None if own else 224,
        "macro_f1": f1,
        "rarest_f1": f1 / 2,
        "rarest": "fray",
        "first": None if own else 10.0 + split,
        "whole": 100.0,
        "memory": 2e9,
        "cores": 2,
    } | more


RECORDS = [
    *(record("lightning", split, f1) for split, f1 in enumerate((0.5, 0.6, 0.7))),
    *(record("timm", split, f1) for split, f1 in enumerate((0.6, 0.65, 0.76))),
    *(record("logistic", split, f1) for split, f1 in enumerate((0.7, 0.7, 0.7))),
    record("classwise", 0, 0.1),
    *(record("classwise", split, f1, whole=50.0, memory=1e9) for split, f1 in enumerate((0.8, 0.75, 0.86))),
    record("timm", 0, 0.99, epochs=3),
    record("timm", 1, 0.99, size=96),
    record("logistic", 2, 0.7, whole=1e6, cores=1),  # scored, but beside others
    {"set": "tiles", "split": 2, "trainer": "timm", "epochs": 10, "size": 224, "error": "no room"},
]


def test_the_table_of_a_data_set() -> None:
    """The latest record of each cell with the epochs and the size; differences are paired by split."""
    results = Results(RECORDS, Selection(10, 224))
    assert results.trainers("tiles") == ["classwise", "lightning", "timm", "logistic"]
    assert results.best_peer("tiles") == "timm"
    assert gain(results, "tiles", "classwise", "timm") == "+0.133 (-0.010 to 0.277)"
    lines = set_table(results, "tiles")
    assert "F1 of fray" in lines[0]
    assert lines[2].startswith(
        "| classwise | 0.803 | 0.667 to 0.940 | 0.800, 0.750, 0.860 | +0.133 (-0.010 to 0.277) |"
    )
    assert lines[2].endswith("| 0.402 |  | 50.0 | 1000 |")
    assert lines[4].startswith("| timm (best peer) | 0.670 |")
    assert "0.990" not in "".join(lines)
    assert lines[5].endswith("| 11.0 | 100.0 | 2000 |")


def test_the_table_of_figures() -> None:
    """Ratios are medians over the splits of both; what is unknown is left empty."""
    line = figures_table(Results(RECORDS, Selection(10, 224)), ["tiles", "cells"], "classwise")[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["tiles", "0.803", "timm"]
    assert cells[5].startswith("+0.067")
    assert cells[6:] == ["", "0.50", "0.50"]
    timed = [replace_first(one) for one in RECORDS]
    again = figures_table(Results(timed, Selection(10, 224)), ["tiles"], "classwise")[-1]
    assert again.split("|")[7].strip() == "0.30"


def replace_first(one: dict[str, Any]) -> dict[str, Any]:
    """classwise answers after 0.3 of the time of the script."""
    return one | {"first": 0.3 * (10 + one["split"])} if one["trainer"] == "classwise" else one


def test_cells_in_turns() -> None:
    """The other order in every second split; what a trainer does not take is not in its key."""
    options = options_for(Path("work"), "--trainers", "classwise", "timm", "logistic", "--size", "64")
    cells = list(small_data.cells_of(options))
    assert [cell.trainer for cell in cells[:3]] == [cell.trainer for cell in cells[3:]][::-1]
    assert {(cell.trainer, cell.epochs, cell.size) for cell in cells} == {
        ("classwise", None, None),
        ("timm", 6, 64),
        ("logistic", None, 64),
    }
    assert replace(cells[0], options=("a=1",)).name == "classwise a=1"
    assert json.loads(json.dumps(cells[0].key)) == cells[0].key


def test_digits_are_drawn_anew(tmp_path: Path) -> None:
    """Forty of each to test on, in every split others."""
    made = [sets.make_split("digits", split, tmp_path, None) for split in (0, 1)]
    for one in made:
        assert set(Counter(row["label"] for row in sets.read_rows(one.truth)).values()) == {40}
        assert one.rarest == "9"
        assert all((one.train.parent / row["path"]).is_file() for row in sets.read_rows(one.train))
    images = [
        [(one.train.parent / row["path"]).read_bytes() for row in sets.read_rows(one.test)] for one in made
    ]
    assert images[0] != images[1]


def test_faces_have_one_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes of the competition; nobody of the test is in training."""
    monkeypatch.setattr(sets, "PEOPLE", 12)
    monkeypatch.setattr(sets, "write_competition", partial(write_competition, processes=1))
    made = sets.make_split("faces", 0, tmp_path, None)
    train, truth = sets.read_rows(made.train), sets.read_rows(made.truth)
    assert made.labels == tuple(f"class{k:02d}" for k in range(18))
    assert len(train) == len(truth) == 12 * 7
    assert all((made.train.parent / row["path"]).is_file() for row in (*train, *truth))
    by_person = Counter(row["person"] for row in train)
    assert set(by_person.values()) <= {7, 14}  # one id is shared by two people
    masks = Counter(int(row["label"].removeprefix("class")) // 6 for row in train)
    assert masks == {0: 60, 1: 12, 2: 12}


def test_every_trainer_can_be_asked_for() -> None:
    assert set(trainers.TRAINERS) == set(small_data.TRAINERS)
