"""From data as people have them to predictions: a tree of parts, ids without suffix in two folders, links, one-hot."""

import json
from pathlib import Path

import pytest

from tests.helpers.scenes import command, draw, write_csv
from tests.helpers.tables import read_csv

QUICK = [
    *(
        "--training.epochs",
        "1",
        "--selection.first_epoch",
        "1",
        "--data.workers",
        "0",
        "--training.threads",
        "1",
    ),
    *("--report.baselines", "false", "--report.resamples", "0", "--training.precision", "fp32"),
]
KINDS = ("ash", "elm", "oak")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(source: str) -> str:
    """`init` and `train`; what both have said."""
    said = command("init", source, "--scratch", "--no-hub").ok().err
    return said + command("train", "classwise.toml", *QUICK, "--run", "run").ok().err


def test_a_tree_of_parts(here: Path) -> None:
    """Trained on train, validated on val, and the test scored by `evaluate` alone."""
    for part, count, first in (("train", 8, 0), ("val", 3, 20), ("test", 3, 40)):
        for kind, label in enumerate(KINDS):
            for seed in range(count):
                draw(here / "data" / part / label / f"{first + seed}.png", kind, first + seed)
    said = begun("data")
    assert "24 training and 9 validation rows" in said
    split = read_csv(here / "run" / "split.csv")
    assert {row["split"]: row["path"].split("/data/")[1].split("/")[0] for row in split} == {
        "train": "train",
        "valid": "val",
    }
    assert command("resume", "run").ok().code == 0
    result = command("evaluate", "run", "data/test").ok()
    assert "label" in result.out
    # With the tree itself as the source, `train` does the same.
    command("train", "data", *QUICK, "--run", "other").ok()
    assert [row["path"] for row in read_csv(here / "other" / "split.csv")] == [row["path"] for row in split]


def test_ids_in_two_folders_and_rows_twice(here: Path) -> None:
    """Found in training and in prediction, with ids as the table has them; the report has the images."""
    for number in range(30):
        draw(here / f"part_{number % 2 + 1}" / f"{number:04}.png", number % 3, number)
    rows = [[f"{number:04}", KINDS[number % 3]] for number in range(30)]
    write_csv(here / "t.csv", ("id", "species"), [*rows, rows[0], rows[0]])
    said = begun("t.csv")
    assert "left out 2 rows that repeat another one in every column" in said
    assert {row["id"] for row in read_csv(here / "run" / "split.csv")} == {row[0] for row in rows}
    result = command("predict", "run", "t.csv", "--out", "p.csv").ok()
    assert "left out 2 rows that repeat another one" in result.err
    assert [row["id"] for row in read_csv(here / "p.csv")] == [row[0] for row in rows]
    assert "data:image/png" in (here / "run" / "report.html").read_text(encoding="utf-8")


def test_links_to_a_store(here: Path) -> None:
    """Images and class folders that are links, through training, prediction and a submission."""
    for number in range(24):
        draw(here / "store" / f"{number}.png", number % 3, number)
        link = here / "data" / KINDS[number % 3] / f"{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(here / "store" / f"{number}.png")
    (here / "test").symlink_to(here / "store")
    said = begun("data")
    assert "links: 24 of 24 images are reached through links" in said
    command("predict", "run", "data", "--out", "p.csv").ok()
    assert len(read_csv(here / "p.csv")) == 24
    (here / "links").mkdir()
    (here / "links" / "in").symlink_to(here / "store")
    write_csv(here / "template.csv", ("id", "label"), [[f"in/{number}", "oak"] for number in range(4)])
    command("submit", "run", "template.csv", "--images", "links", "--out", "s.csv").ok()
    assert [row["id"] for row in read_csv(here / "s.csv")] == [f"in/{number}" for number in range(4)]


def test_one_column_for_each_class(here: Path) -> None:
    """One target, whose predictions and scores have the names of the columns."""
    for number in range(30):
        draw(here / "im" / f"{number}.png", number % 3, number)
    rows = [[f"{number}.png", *(int(kind == number % 3) for kind in range(3))] for number in range(30)]
    write_csv(here / "t.csv", ("image", *KINDS), rows)
    begun("t.csv")
    metrics = json.loads((here / "run" / "metrics.json").read_text())
    assert metrics["targets"]["label"]["labels"] == list(KINDS)
    command("predict", "run", "t.csv", "--out", "p.csv").ok()
    predictions = read_csv(here / "p.csv")
    assert [row["label_true"] for row in predictions] == [KINDS[number % 3] for number in range(30)]
    command("evaluate", "run", "t.csv").ok()


def test_a_folder_of_parts_as_a_config_s_source(here: Path) -> None:
    """Refused by `train` with a way out, whatever wrote the config."""
    for part in ("train", "test"):
        for seed in range(4):
            draw(here / "data" / part / KINDS[seed % 2] / f"{seed}.png", seed % 2, seed + len(part))
    (here / "c.toml").write_text('[data]\nsource = "data"\n[targets.label]\ncolumn = "label"\n')
    result = command("train", "c.toml", *QUICK)
    assert result.code == 1
    assert "the folders test, train, which are parts of a split and no classes" in result.err
