"""`classwise check` on drawn images: what it finds, what it writes, and what it says of odd data."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

import classwise
from classwise.datacheck import api
from classwise.errors import ClasswiseError
from tests.helpers.pretrained import probed_config
from tests.helpers.scenes import PLAIN, class_folder, command, plain_table, write_config, write_csv


def blobs(path: Path, seed: int, size: int = 96) -> np.ndarray:
    """An image that is like no other: some thirty blots of light on a gray ground."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), 110, np.uint8)
    for _ in range(30):
        center = tuple(int(value) for value in rng.integers(0, size, 2))
        color = tuple(int(value) for value in rng.integers(20, 235, 3))
        cv2.circle(image, center, int(rng.integers(2, 14)), color, -1)
    save(path, image)
    return image


def save(path: Path, image: np.ndarray, *options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, data = cv2.imencode(path.suffix, image, options)
    assert encoded
    path.write_bytes(data.tobytes())


def table_of_blobs(folder: Path, count: int = 80) -> list[list[str]]:
    """samples.csv with `count` different images of two classes."""
    rows = [[f"images/{row:03}.png", "ab"[row % 2]] for row in range(count)]
    for row, (path, _) in enumerate(rows):
        blobs(folder / path, row)
    write_csv(folder / "samples.csv", ("path", "label"), rows)
    return rows


PLAIN_MODEL = ("--model.backbone", "small_cnn", "--model.weights", "none")
"""Without pretrained weights there are no features to compute, which take seconds."""


def checked(folder: Path, source: object = "samples.csv", *options: object) -> dict[str, Any]:
    """check.json of a check of `source` in `folder`, without features."""
    out = folder / "out"
    command("check", folder / str(source), "--out", out, *options, *PLAIN_MODEL).ok()
    return read(out)


def read(out: Path) -> dict[str, Any]:
    assert (out / "check.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    found = json.loads((out / "check.json").read_text(encoding="utf-8"))
    assert pl.read_csv(out / "check.csv").height == len(found["findings"])
    return dict(found)


def kinds(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [finding for finding in found["findings"] if finding["kind"] == kind]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in which the first image is copied in four ways, one of them with another label; one file is cut
    short."""
    folder = tmp_path_factory.mktemp("check")
    rows = table_of_blobs(folder)
    image = cv2.imread(str(folder / rows[0][0]))
    shutil.copy(folder / rows[0][0], folder / "images/twin.png")
    save(folder / "images/same-pixels.bmp", image)
    save(folder / "images/mirrored.png", image[:, ::-1])
    save(folder / "images/again.jpg", cv2.resize(image, (80, 80)), cv2.IMWRITE_JPEG_QUALITY, 60)
    (folder / "images/cut.png").write_bytes((folder / rows[1][0]).read_bytes()[:200])
    for name, label in (
        ("twin.png", "b"),
        ("same-pixels.bmp", "a"),
        ("mirrored.png", "a"),
        ("again.jpg", "a"),
        ("cut.png", "b"),
    ):
        rows.append([f"images/{name}", label])
    write_csv(folder / "samples.csv", ("path", "label"), rows)
    return folder


@pytest.fixture(scope="module")
def found(here: Path) -> dict[str, Any]:
    return checked(here)


def test_copies_are_found_by_bytes_pixels_and_sight(here: Path, found: dict[str, Any]) -> None:
    (exact,) = kinds(found, "exact-copy")
    assert set(exact["details"]["members"]) == {"images/000.png", "images/twin.png", "images/same-pixels.bmp"}
    assert exact["severity"] == "info"  # a split keeps them together
    (near,) = kinds(found, "near-copy")
    assert {"images/mirrored.png", "images/again.jpg"} < set(near["details"]["members"])
    assert near["severity"] == "warning"
    assert "--write-groups" in near["advice"]


def test_a_contradiction_on_equal_images_is_severe(found: dict[str, Any]) -> None:
    conflict, *others = kinds(found, "label-conflict")
    assert conflict["severity"] == "severe"
    assert {conflict["id"], conflict["partner"]} == {"images/000.png", "images/twin.png"}
    assert not others


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(found: dict[str, Any]) -> None:
    (unreadable,) = kinds(found, "unreadable")
    assert (unreadable["id"], unreadable["severity"]) == ("images/cut.png", "severe")
    assert found["rows"] == {"train": 85}


def test_strict_ends_with_3_and_only_where_something_is_severe(here: Path, tmp_path: Path) -> None:
    result = command("check", here / "samples.csv", "--out", tmp_path / "out", "--strict", *PLAIN_MODEL)
    assert result.code == 3
    assert "severe: contradictory labels 1, unreadable images 1" in result.err
    assert result.path == tmp_path / "out/check.html"
    table_of_blobs(tmp_path, 60)
    assert (
        command("check", tmp_path / "samples.csv", "--out", tmp_path / "clean", "--strict", *PLAIN_MODEL).code
        == 0
    )
    assert not [f for f in read(tmp_path / "clean")["findings"] if f["severity"] == "severe"]


def test_the_source_is_never_changed(here: Path, tmp_path: Path) -> None:
    before = {
        path: path.read_bytes() for path in here.rglob("*") if path.is_file() and "out" not in path.parts
    }
    command(
        "check", here / "samples.csv", "--out", tmp_path / "out", "--write-groups", "--fix", *PLAIN_MODEL
    ).ok()
    assert {path: path.read_bytes() for path in before} == before


def test_the_same_data_gives_the_same_bytes(here: Path, tmp_path: Path, found: dict[str, Any]) -> None:
    command("check", here / "samples.csv", "--out", tmp_path / "out", *PLAIN_MODEL).ok()
    for name in ("check.csv", "check.json", "check.html"):
        assert (tmp_path / "out" / name).read_bytes() == (here / "out" / name).read_bytes()


def test_groups_hold_copies_together_in_a_split(here: Path, tmp_path: Path) -> None:
    """The table that is written trains as it is said, and no copy is on another side than the others."""
    out = tmp_path / "out"
    said = command("check", here / "samples.csv", "--out", out, "--write-groups", *PLAIN_MODEL).ok().err
    assert "data.group" in said
    groups = pl.read_csv(out / "groups.csv", infer_schema=False)
    copies = [
        "images/000.png",
        "images/twin.png",
        "images/same-pixels.bmp",
        "images/mirrored.png",
        "images/again.jpg",
    ]
    assert groups.filter(pl.col("path").is_in(copies))["group"].n_unique() == 1
    assert groups["group"].n_unique() == 85 - 4
    values = PLAIN | {
        "data": {
            **PLAIN["data"],
            "source": str(out / "groups.csv"),
            "images": str(here),
            "group": "group",
            "bad_images": "skip",
        }
    }
    run = tmp_path / "run"
    command("train", write_config(tmp_path, values), "--run", run, "--training.epochs", 1, "--quiet").ok()
    split = pl.read_csv(run / "split.csv")
    assert split.filter(pl.col("id").is_in(copies))["split"].n_unique() == 1


def test_proposals_are_applied_only_where_they_are_accepted(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Copies whose labels contradict each other are not proposed for removal: nobody knows which is right.
    command("check", here / "samples.csv", "--out", out, "--fix", *PLAIN_MODEL).ok()
    assert pl.read_csv(out / "proposals.csv")["id"].to_list() == ["images/cut.png"]
    shutil.copytree(here / "images", tmp_path / "images")
    rows = pl.read_csv(here / "samples.csv").with_columns(
        pl.when(pl.col("path") == "images/twin.png")
        .then(pl.lit("a"))
        .otherwise(pl.col("label"))
        .alias("label")
    )
    rows.write_csv(tmp_path / "samples.csv")
    command("check", tmp_path / "samples.csv", "--out", out, "--fix", "--force", *PLAIN_MODEL).ok()
    proposals = pl.read_csv(out / "proposals.csv", infer_schema=False)
    assert proposals["id"].to_list() == ["images/cut.png", "images/twin.png", "images/same-pixels.bmp"]
    accepted = proposals.with_columns(pl.Series("accept", [None, "y", None]))
    accepted.write_csv(out / "proposals.csv")
    new = tmp_path / "new.csv"
    said = command("check", tmp_path / "samples.csv", "--apply", out / "proposals.csv", "--out", new).ok().err
    assert "1 row removed" in said
    assert "2 proposals not accepted" in said
    assert pl.read_csv(new).equals(rows.filter(pl.col("path") != "images/twin.png"))


def test_apply_needs_a_name_for_the_new_table(here: Path) -> None:
    result = command("check", here / "samples.csv", "--apply", "proposals.csv")
    assert result.code == 1
    assert "--apply: found without --out" in result.err


# Parts and other sets


def test_copies_between_given_parts_are_severe(tmp_path: Path) -> None:
    """A column of the table says which rows are for validation and for the test; a test that `init` would keep out is
    looked at."""
    rows = table_of_blobs(tmp_path)
    parts = ["train"] * 60 + ["valid"] * 10 + ["test"] * 10
    image = cv2.imread(str(tmp_path / rows[0][0]))
    save(tmp_path / rows[-1][0], np.rot90(image).copy())
    shutil.copy(tmp_path / rows[1][0], tmp_path / rows[65][0])
    write_csv(
        tmp_path / "samples.csv",
        ("path", "label", "split"),
        [[*row, part] for row, part in zip(rows, parts, strict=True)],
    )
    found = checked(tmp_path)
    assert found["rows"] == {"train": 60, "valid": 10, "test": 10}
    (exact,), (near,) = kinds(found, "exact-copy"), kinds(found, "near-copy")
    assert exact["severity"] == near["severity"] == "severe"
    assert exact["details"]["parts"] == {"train": 1, "valid": 1}
    assert {near["id"], near["partner"]} == {rows[0][0], rows[-1][0]}
    assert near["details"]["parts"] == {"train": 1, "test": 1}


def test_another_set_is_searched_for_copies(here: Path, tmp_path: Path) -> None:
    """Without labels, as a test of a competition is."""
    for seed in range(500, 530):
        blobs(tmp_path / f"test/{seed}.png", seed)
    image = cv2.imread(str(here / "images/010.png"))
    save(tmp_path / "test/leak.jpg", image[4:-4, 4:-4], cv2.IMWRITE_JPEG_QUALITY, 80)
    out = tmp_path / "out"
    command("check", here / "samples.csv", "--against", tmp_path / "test", "--out", out, *PLAIN_MODEL).ok()
    found = read(out)
    assert found["rows"] == {"train": 85, "test": 31}
    (leak,) = [finding for finding in kinds(found, "near-copy") if finding["severity"] == "severe"]
    assert {leak["id"], leak["partner"]} == {"images/010.png", "test:leak.jpg"}


def test_a_set_is_not_compared_with_itself(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = (
        command("check", here / "samples.csv", "--against", here / "samples.csv", "--out", out, *PLAIN_MODEL)
        .ok()
        .err
    )
    assert "85 rows checked" in said
    assert read(out)["rows"] == {"train": 85}
    assert any("it holds all files of the data itself" in line for line in read(out)["not_checked"])


def test_images_without_labels_are_checked_for_what_they_are(tmp_path: Path) -> None:
    rows = table_of_blobs(tmp_path)
    shutil.copy(tmp_path / rows[3][0], tmp_path / rows[4][0])
    found = checked(tmp_path, "images")
    assert kinds(found, "exact-copy")
    assert any("labels: none were recognized" in line for line in found["not_checked"])
    write_csv(tmp_path / "paths.csv", ("path",), [row[:1] for row in rows])
    assert kinds(checked(tmp_path, "paths.csv"), "exact-copy")


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_and_two(tmp_path: Path, count: int) -> None:
    for seed in range(count):
        blobs(tmp_path / f"images/{seed}.png", seed)
    assert checked(tmp_path, "images")["rows"] == {"train": count}


def test_one_class(tmp_path: Path) -> None:
    for seed in range(12):
        blobs(tmp_path / f"photos/a/{seed}.png", seed)
    assert checked(tmp_path, "photos")["rows"] == {"train": 12}


def test_equal_images_are_one_group(tmp_path: Path) -> None:
    blobs(tmp_path / "images/0.png", 0)
    data = (tmp_path / "images/0.png").read_bytes()
    for number in range(1, 1500):
        (tmp_path / f"images/{number}.png").write_bytes(data)
    (group,) = kinds(checked(tmp_path, "images"), "exact-copy")
    assert group["details"]["count"] == 1500
    assert len(group["details"]["members"]) == 200


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>.png", "=1+1.png", 'it\'s "odd".png', "한국어 \u202e.png"]
)
def test_names_are_text(tmp_path: Path, name: str) -> None:
    name = name.replace("/", "_")
    blobs(tmp_path / f"images/{name}", 0)
    shutil.copy(tmp_path / f"images/{name}", tmp_path / "images/copy.png")
    (copy,) = kinds(checked(tmp_path, "images"), "exact-copy")
    assert name in copy["details"]["members"]
    page = (tmp_path / "out/check.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    cells = pl.read_csv(tmp_path / "out/check.csv", infer_schema=False)
    assert not any(str(cell).startswith("=") for column in cells for cell in column)


# Folds, features, training


@pytest.fixture(scope="module")
def with_folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn stripes, of which one is labeled as the other kind, and folds of a probe in `F`."""
    folder = tmp_path_factory.mktemp("labels")
    rows = plain_table(folder, 80)
    rows[10][1] = "b"
    write_csv(folder / "samples.csv", ("path", "label"), rows)
    config = probed_config(folder, training__plan="probe", data__valid=0.25)
    command("folds", config, "--folds", 4, "--run", folder / "F", "--quiet").ok()
    return folder


def test_a_wrong_label_is_ranked_first_and_proposed(with_folds: Path) -> None:
    out = with_folds / "out"
    command(
        "check", with_folds / "classwise.toml", "--run", with_folds / "F", "--out", out, "--fix", "--force"
    ).ok()
    found = read(out)
    first = min(kinds(found, "label-error"), key=lambda finding: finding["details"]["rank"])
    assert first["id"] == "images/10.png"
    assert (first["details"]["given"], first["details"]["proposed"]) == ("b", "a")
    assert any("expected to be wrong" in line for line in found["checked"])
    proposals = pl.read_csv(out / "proposals.csv", infer_schema=False)
    row = proposals.filter(pl.col("id") == "images/10.png").row(0, named=True)
    assert (row["action"], row["column"], row["found"], row["proposed"]) == ("relabel", "label", "b", "a")


def test_features_find_what_does_not_belong(with_folds: Path, tmp_path: Path) -> None:
    """With pretrained weights, outliers are looked for, and other sets compared."""
    out = tmp_path / "out"
    for seed in range(40):
        blobs(tmp_path / f"test/{seed}.png", seed, size=28)
    command("check", with_folds / "classwise.toml", "--against", tmp_path / "test", "--out", out).ok()
    found = read(out)
    assert any(line.startswith("outliers among 80 images") for line in found["checked"])
    (shift,) = kinds(found, "shift")
    assert shift["details"]["part"] == "test"
    assert shift["value"] > 0.9


def test_folds_of_other_data_are_refused(with_folds: Path, here: Path, tmp_path: Path) -> None:
    result = command("check", here / "samples.csv", "--run", with_folds / "F", "--out", tmp_path / "out")
    assert result.code == 1
    assert "these folds are of other data: " in result.err
    assert not (tmp_path / "out").exists()


def test_a_run_is_no_folds_directory(with_folds: Path, tmp_path: Path) -> None:
    result = command(
        "check", with_folds / "samples.csv", "--run", with_folds / "F/fold-0", "--out", tmp_path / "out"
    )
    assert result.code == 1
    assert "is no folds directory" in result.err


@pytest.mark.parametrize("error", [MemoryError("9 GiB"), ClasswiseError("no such weights")])
def test_where_features_fail_the_rest_is_written(
    with_folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(api, "row_features", fail)
    out = tmp_path / "out"
    command("check", with_folds / "classwise.toml", "--out", out).ok()
    assert any(
        f"features could not be computed: {type(error).__name__}" in line for line in read(out)["not_checked"]
    )


def test_a_run_checks_its_own_data_where_a_key_asks_for_it(here: Path, tmp_path: Path) -> None:
    """Its own split is what copies are looked for across; the report links the page."""
    values = PLAIN | {
        "data": {
            **PLAIN["data"],
            "images": str(here),
            "source": str(here / "samples.csv"),
            "bad_images": "skip",
        }
    }
    run = tmp_path / "run"
    said = command(
        "train", write_config(tmp_path, values), "--data.check", "all", "--run", run, "--training.epochs", 1
    ).ok()
    assert "check: " in said.err
    found = read(run)
    assert set(found["rows"]) == {"train", "valid"}
    report = (run / "report.html").read_text(encoding="utf-8")
    assert 'href="check.html"' in report
    assert "Data check: " in report


def test_the_same_from_python(here: Path, tmp_path: Path) -> None:
    found = classwise.check(here / "samples.csv", out=tmp_path / "out", overrides=[("model.weights", "none")])
    assert found.is_severe
    assert found.counts == {"severe": 2, "warning": found.counts["warning"], "info": found.counts["info"]}
    assert found.findings[0].severity == "severe"


@pytest.mark.parametrize(
    ("source", "message"),
    [("nothing.csv", "there is no config, table or folder"), ("empty", "found no images")],
)
def test_what_is_no_source(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    result = command("check", tmp_path / source, "--out", tmp_path / "out")
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_classes(tmp_path: Path) -> None:
    """The folder that the label was read from tells it, which is no shortcut."""
    class_folder(tmp_path / "photos", {"a": 30, "b": 30})
    out = tmp_path / "out"
    said = command("check", tmp_path / "photos", "--out", out, "--write-groups", *PLAIN_MODEL).ok().err
    assert f'data.images = "{tmp_path / "photos"}"' in said
    found = read(out)
    assert "folder" not in [shortcut["details"]["column"] for shortcut in kinds(found, "shortcut")]
    assert pl.read_csv(tmp_path / "out/groups.csv").columns == ["path", "label", "group"]


# What a strict reader and a new user found


def test_tables_with_the_same_ids_are_told_apart(tmp_path: Path) -> None:
    """Each table has ids of its own: groups, pages and proposals are of the right rows."""
    rows = table_of_blobs(tmp_path, 40)
    shutil.copy(tmp_path / rows[0][0], tmp_path / rows[29][0])
    numbered = [[str(number), *row] for number, row in enumerate(rows)]
    write_csv(tmp_path / "samples.csv", ("id", "path", "label"), numbered[:30])
    write_csv(
        tmp_path / "valid.csv", ("id", "path", "label"), [[str(k), *row] for k, row in enumerate(rows[30:])]
    )
    values = PLAIN | {"data": {**PLAIN["data"], "id": "id", "valid": "valid.csv"}}
    config = write_config(tmp_path, values)
    out = tmp_path / "out"
    command("check", config, "--out", out, "--write-groups", "--fix").ok()
    (exact,) = kinds(read(out), "exact-copy")
    assert exact["details"]["members"] == ["0", "29"]
    groups = pl.read_csv(out / "groups.csv", infer_schema=False)
    assert groups.height == 30
    assert groups["group"][0] == groups["group"][29]
    assert groups["group"].n_unique() == 29


def test_a_test_that_lists_training_files_is_a_leak(here: Path, tmp_path: Path) -> None:
    """Not all of them: a set that holds all files of the data is the data itself."""
    blobs(tmp_path / "new.png", 900)
    paths = [[str(here / f"images/{row:03}.png")] for row in range(10, 20)] + [[str(tmp_path / "new.png")]]
    table = write_csv(tmp_path / "test.csv", ("path",), paths)
    out = tmp_path / "out"
    values = PLAIN | {
        "data": {**PLAIN["data"], "images": [str(here), str(tmp_path)], "source": str(here / "samples.csv")}
    }
    command("check", write_config(tmp_path, values), "--against", table, "--out", out).ok()
    severe = [finding for finding in kinds(read(out), "exact-copy") if finding["severity"] == "severe"]
    assert {finding["id"] for finding in severe} == {f"images/{row:03}.png" for row in range(10, 20)}


def test_copies_within_other_sets_are_their_own_affair(here: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        blobs(tmp_path / f"{name}/a.png", 700)
    out = tmp_path / "out"
    options = ["--against", tmp_path / "one", "--against", tmp_path / "two"]
    command("check", here / "samples.csv", *options, "--out", out, *PLAIN_MODEL).ok()
    assert not [copy for copy in kinds(read(out), "exact-copy") if copy["severity"] == "severe"]


def test_copies_in_two_folds_are_severe(tmp_path: Path) -> None:
    rows = table_of_blobs(tmp_path, 30)
    shutil.copy(tmp_path / rows[0][0], tmp_path / rows[1][0])
    write_csv(
        tmp_path / "samples.csv",
        ("path", "label", "fold"),
        [[*row, row_number % 3] for row_number, row in enumerate(rows)],
    )
    values = PLAIN | {"data": {**{k: v for k, v in PLAIN["data"].items() if k != "valid"}, "fold": "fold"}}
    out = tmp_path / "out"
    command("check", write_config(tmp_path, values), "--out", out).ok()
    (exact,) = kinds(read(out), "exact-copy")
    assert exact["severity"] == "severe"
    assert exact["details"]["parts"] == {"fold 0": 1, "fold 1": 1}


def test_each_target_is_contradicted_for_itself_and_no_label_is_a_label(tmp_path: Path) -> None:
    rows = table_of_blobs(tmp_path, 12)
    shutil.copy(tmp_path / rows[0][0], tmp_path / rows[1][0])
    cells = [[path, "xy"[k % 2], "pq"[k % 2], k % 2, k % 2] for k, (path, _) in enumerate(rows)]
    write_csv(tmp_path / "samples.csv", ("path", "kind", "color", "scratch", "dent"), cells)
    targets = {
        "kind": {"column": "kind"},
        "color": {"column": "color"},
        "faults": {"type": "multilabel", "columns": ["scratch", "dent"]},
    }
    out = tmp_path / "out"
    command("check", write_config(tmp_path, PLAIN | {"targets": targets}), "--out", out, "--fix").ok()
    assert {conflict["details"]["target"] for conflict in kinds(read(out), "label-conflict")} == set(targets)
    assert not pl.read_csv(out / "proposals.csv").height


def test_images_of_a_ranking_may_recur(tmp_path: Path) -> None:
    table_of_blobs(tmp_path, 6)
    rows = [[f"{query}-{k}", f"images/{k:03}.png", k % 3, query] for query in ("q", "r") for k in range(6)]
    write_csv(tmp_path / "samples.csv", ("id", "path", "relevance", "query"), rows)
    values = PLAIN | {
        "data": {**PLAIN["data"], "id": "id"},
        "targets": {"match": {"type": "ranking", "column": "relevance", "query": "query"}},
    }
    out = tmp_path / "out"
    command("check", write_config(tmp_path, values), "--out", out, "--fix").ok()
    assert pl.read_csv(out / "proposals.csv").height == 0


def test_folders_of_parts_and_classes_have_no_shortcuts_by_place(tmp_path: Path) -> None:
    for part, first in (("train", 0), ("valid", 100), ("test", 200)):
        for kind, label in enumerate(("cat", "dog", "owl")):
            for number in range(12):
                blobs(tmp_path / f"t/{part}/{label}/{number:02}.png", first + 1000 * kind + number)
    columns = [shortcut["details"]["column"] for shortcut in kinds(checked(tmp_path, "t"), "shortcut")]
    assert "folder" not in columns
    assert "position" not in columns


@pytest.mark.parametrize("model", [PLAIN_MODEL, ()])
def test_not_one_image_can_be_read(tmp_path: Path, model: tuple[str, ...]) -> None:
    rows = table_of_blobs(tmp_path, 12)
    for path, _ in rows[1:]:
        (tmp_path / path).write_bytes(b"no image")
    (tmp_path / rows[0][0]).unlink()
    config = write_config(tmp_path, PLAIN)
    out = tmp_path / "out"
    command("check", config, "--out", out, *model).ok()
    assert len(kinds(read(out), "unreadable")) == 12


@pytest.mark.parametrize("option", [("--strict",), ("--fix",), ("--against", "x")])
def test_apply_refuses_what_it_would_ignore(here: Path, option: tuple[str, ...]) -> None:
    result = command("check", here / "samples.csv", "--apply", "p.csv", "--out", "new.csv", *option)
    assert result.code == 1
    assert f"{option[0]}: found with --apply" in result.err


def test_a_file_that_is_there_is_refused_before_anything_is_read(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "proposals.csv").write_text("mine")
    monkeypatch.setattr(api, "read_signatures", lambda *arguments, **keys: pytest.fail("it has begun"))
    result = command("check", here / "samples.csv", "--out", out, "--fix", *PLAIN_MODEL)
    assert result.code == 1
    assert "proposals.csv" in result.err
    assert [path.name for path in out.iterdir()] == ["proposals.csv"]


def test_flat_images_with_equal_pixels_are_copies(tmp_path: Path) -> None:
    rows = table_of_blobs(tmp_path, 20)
    white = np.full((60, 60, 3), 255, np.uint8)
    save(tmp_path / "images/white.png", white)
    save(tmp_path / "images/white.bmp", white)
    write_csv(
        tmp_path / "samples.csv",
        ("path", "label"),
        [*rows, ["images/white.png", "a"], ["images/white.bmp", "b"]],
    )
    (conflict,) = kinds(checked(tmp_path), "label-conflict")
    assert conflict["severity"] == "severe"


def test_images_of_other_colors_are_no_copies(tmp_path: Path) -> None:
    """The same shapes in red and in blue, equally bright."""
    rows = table_of_blobs(tmp_path, 60)
    image = cv2.imread(str(tmp_path / rows[0][0]), cv2.IMREAD_GRAYSCALE)
    for name, weights in (("red", (0.3, 0.6, 1.6)), ("blue", (2.6, 0.8, 0.6))):
        color = np.clip(image[..., None] * np.array(weights), 0, 255).astype(np.uint8)
        save(tmp_path / f"images/{name}.png", color)
        rows.append([f"images/{name}.png", "a"])
    write_csv(tmp_path / "samples.csv", ("path", "label"), rows)
    near = kinds(checked(tmp_path), "near-copy")
    assert not any({"images/red.png", "images/blue.png"} <= set(copy["details"]["members"]) for copy in near)


def test_labels_that_are_surely_right_are_not_listed(with_folds: Path, tmp_path: Path) -> None:
    """The drawn stripes are told apart with certainty, but for the one that has the other label."""
    out = tmp_path / "out"
    command("check", with_folds / "classwise.toml", "--run", with_folds / "F", "--out", out, "--fix").ok()
    listed = kinds(read(out), "label-error")
    assert 1 <= len(listed) <= 4
    assert pl.read_csv(out / "proposals.csv")["id"].to_list() == ["images/10.png"]


def test_folds_are_checked_once_for_all(with_folds: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    options = ["--folds", 2, "--data.check", "all", "--run", run, "--quiet"]
    command("folds", with_folds / "classwise.toml", *options).ok()
    assert read(run)["rows"] == {"train": 80}
    assert not (run / "fold-0/check.html").exists()
    assert 'href="check.html"' in (run / "report.html").read_text(encoding="utf-8")


def test_odd_images_are_named_with_the_class_that_most_of_them_have(tmp_path: Path) -> None:
    rows = table_of_blobs(tmp_path, 60)
    image = cv2.imread(str(tmp_path / rows[0][0]))
    odd = {
        "dark": image // 16,
        "bright": 255 - image // 20,
        "blurred": cv2.GaussianBlur(image, (0, 0), 9),
        "odd-size": np.tile(image, (1, 6, 1)),
        "odd-mode": cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    }
    for kind, pixels in odd.items():
        save(tmp_path / f"images/{kind}.png", pixels)
        rows.append([f"images/{kind}.png", "a"])
    for number in range(4):
        save(tmp_path / f"images/blank-{number}.png", np.full((96, 96, 3), 60 * number + 9, np.uint8))
        rows.append([f"images/blank-{number}.png", "c"])
    write_csv(tmp_path / "samples.csv", ("path", "label"), rows)
    found = checked(tmp_path)
    for kind in odd:
        assert f"images/{kind}.png" in {finding["id"] for finding in kinds(found, kind)}, kind
    blank = kinds(found, "blank")
    assert len(blank) == 4
    assert "4 of 4 such images have label 'c'" in blank[0]["advice"]


def test_the_quality_of_files_that_tells_the_label_is_a_shortcut(tmp_path: Path) -> None:
    rows = []
    for row in range(80):
        image = blobs(tmp_path / "images/last.png", row)
        path = f"images/{row:03}.jpg"
        save(tmp_path / path, image, cv2.IMWRITE_JPEG_QUALITY, 70 + 20 * (row % 2))
        rows.append([path, "ab"[row % 2]])
    (tmp_path / "images/last.png").unlink()
    write_csv(tmp_path / "samples.csv", ("path", "label"), rows)
    result = command("check", tmp_path / "samples.csv", "--out", tmp_path / "out", *PLAIN_MODEL).ok()
    assert "\n- the quality that JPEG files were saved with tells label" in result.err
    found = read(tmp_path / "out")
    shortcuts = {one["details"]["column"]: one for one in kinds(found, "shortcut")}
    assert shortcuts["quantization"]["severity"] == "warning"
    assert "the quality that JPEG files were saved with tells label" in shortcuts["quantization"]["advice"]


def test_an_image_of_another_kind_is_an_outlier(with_folds: Path, tmp_path: Path) -> None:
    """Among stripes; beside it stands the nearest one."""
    shutil.copytree(with_folds / "images", tmp_path / "images")
    rows = pl.read_csv(with_folds / "samples.csv").rows()
    save(
        tmp_path / "images/other.png", np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    )
    write_csv(tmp_path / "samples.csv", ("path", "label"), [*rows, ("images/other.png", "a")])
    shutil.copy(with_folds / "weights.safetensors", tmp_path)
    out = tmp_path / "out"
    command("check", probed_config(tmp_path, training__plan="probe"), "--out", out).ok()
    outliers = kinds(read(out), "outlier")
    assert outliers[0]["id"] == "images/other.png"
    assert outliers[0]["partner"].startswith("images/")
