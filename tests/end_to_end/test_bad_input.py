"""Bad input, item by item: exit code 1, one short message that says where, what and what is allowed, and nothing
half written."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import struct
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from classwise.config.load import load_config
from classwise.console import Console
from classwise.data import images
from classwise.errors import CheckpointError, ConfigError, DataError
from classwise.run.api import Run
from classwise.run.checkpoint import Checkpoint, read_checkpoint
from classwise.run.resume_config import refuse_changed_config
from tests.helpers.refusals import refused, says
from tests.helpers.scenes import (
    PEOPLE,
    class_folder,
    command,
    contents,
    draw,
    people_table,
    plain_rows,
    plain_table,
    untouched,
    write_config,
    write_csv,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a good table of sixteen images in two classes."""
    monkeypatch.chdir(tmp_path)
    plain_table(tmp_path, 16)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same table and a finished run in `run`."""
    folder = tmp_path_factory.mktemp("trained")
    plain_table(folder, 16)
    command("train", write_config(folder, training__epochs=1), "--run", folder / "run").ok()
    return folder


def refused_training(folder: Path, lines: int = 1, values: Any = None, **changes: Any) -> str:
    """`classwise train` with a config that differs in these keys: refused, and no run directory made."""
    config = write_config(folder, **({"values": values} if values else {}), **changes)
    return refused(folder, "train", config, lines=lines)


# A missing file or folder


def test_a_config_that_is_not_there(here: Path) -> None:
    """train names the file and the command that writes one."""
    says(refused(here, "train", "missing.toml"), "there is no config file missing.toml", "classwise init")


def test_a_table_that_is_not_there(here: Path) -> None:
    """data.source names the key and the path."""
    says(refused_training(here, data__source="gone.csv"), "data.source", here / "gone.csv")


def test_an_image_folder_that_is_not_there(here: Path) -> None:
    """data.images names the key and the path."""
    says(refused_training(here, data__images="gone"), "data.images", here / "gone")


def test_a_validation_table_that_is_not_there(here: Path) -> None:
    """data.valid is named, not data.source."""
    message = refused_training(here, data__valid="gone.csv")
    says(message, "data.valid", here / "gone.csv")
    assert "data.source" not in message


def test_weights_that_are_not_there(here: Path) -> None:
    """model.weights names the key and the file."""
    says(refused_training(here, model__weights="gone.safetensors"), "model.weights", "gone.safetensors")


def test_images_that_are_not_there(here: Path) -> None:
    """All missing files are listed at once, before training starts."""
    for row in (2, 5):
        (here / f"images/{row:02}.png").unlink()
    message = refused_training(here, lines=3)
    says(message, "2 images cannot be used", here / "images/02.png", here / "images/05.png")


@pytest.mark.parametrize("verb", ["init", "predict", "evaluate", "submit"])
def test_a_source_that_is_not_there(trained: Path, tmp_path: Path, verb: str) -> None:
    """Every command that takes a source names the one that is missing."""
    gone, out = tmp_path / "gone.csv", tmp_path / "out.csv"
    arguments: dict[str, list[object]] = {
        "init": ["init", gone, "--out", tmp_path / "new"],
        "predict": ["predict", trained / "run", gone, "--out", out],
        "evaluate": ["evaluate", trained / "run", gone],
        "submit": ["submit", trained / "run", gone, "--images", trained, "--out", out],
    }
    with untouched(trained):
        says(refused(tmp_path, *arguments[verb]), gone)


def test_an_image_folder_for_the_template_that_is_not_there(trained: Path, tmp_path: Path) -> None:
    """submit names --images."""
    template = write_csv(tmp_path / "template.csv", ("id", "ans"), [["images/00", ""]])
    out = ("--images", tmp_path / "gone", "--out", tmp_path / "out.csv")
    says(refused(tmp_path, "submit", trained / "run", template, *out), "--images", tmp_path / "gone")


def test_an_output_folder_that_is_not_there(trained: Path, tmp_path: Path) -> None:
    """predict says which folder is missing before it does any work."""
    out = tmp_path / "gone" / "out.csv"
    says(refused(tmp_path, "predict", trained / "run", trained / "images", "--out", out), tmp_path / "gone")


# The table


@pytest.mark.parametrize("text", ["", "path,label\n", "\n\n"])
def test_an_empty_table(here: Path, text: str) -> None:
    """No rows, or not even a header."""
    (here / "samples.csv").write_text(text)
    message = refused_training(here)
    says(message, here / "samples.csv")
    assert "is empty" in message or "no rows" in message


def test_an_empty_folder(here: Path) -> None:
    """A folder source without class folders says what a folder source looks like."""
    (here / "empty").mkdir()
    says(refused_training(here, data__source="empty"), here / "empty", "one sub-folder per class")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("data.path", {"data__path": "pathh"}),
        ("data.id", {"data__id": "pathh"}),
        ("data.group", {"data__group": "pathh"}),
        ("targets.label.column", {"targets__label__column": "labell"}),
    ],
)
def test_a_column_that_is_not_there(here: Path, key: str, change: dict[str, str]) -> None:
    """The message names the config's key, the column, and the nearest one that is there."""
    wanted = next(iter(change.values()))
    says(refused_training(here, **change), key, repr(wanted), f"did you mean {wanted[:-1]!r}?")


def test_an_unknown_label_in_the_validation_table(here: Path) -> None:
    """A label that training does not know: its table, its row, and the labels that are known."""
    rows = plain_table(here, 4, "valid.csv", first=16)
    rows[2][1] = "c"
    write_csv(here / "valid.csv", ("path", "label"), rows)
    message = refused_training(here, data__valid="valid.csv")
    says(message, here / "valid.csv", "'c' in row 3", "'label'", "allowed: a, b")


def test_an_unknown_label_in_the_test_table(trained: Path, tmp_path: Path) -> None:
    """evaluate RUN TABLE counts a label that the model has no output for as a mistake, and says which it may be."""
    table = write_csv(
        tmp_path / "test.csv", ("path", "label"), [["images/00.png", "a"], ["images/01.png", "B"]]
    )
    result = command("evaluate", trained / "run", table).ok()
    says(
        result.err,
        "the model does not know 1 label (B), so 1 row counts as a mistake; 'B' may be meant as 'b'",
    )


def test_a_label_list_that_the_data_contradicts(here: Path) -> None:
    """A label in the table that targets.NAME.labels does not hold."""
    message = refused_training(here, targets__label__labels=["a", "c"])
    says(message, here / "samples.csv", "'label'", "'b' in rows 2, 4", "allowed: a, c")


def test_edges_over_a_column_of_words(here: Path) -> None:
    """edges cut numbers; the first cell that is none is named with its row."""
    says(refused_training(here, targets__label__edges=[30]), "row 1", "'label'", "'a'", "[30.0]", "numbers")


def test_one_class_only(here: Path) -> None:
    """Nothing to tell apart, in a table as in a folder."""
    rows = [[path, "a"] for path, _ in plain_rows(16)]
    write_csv(here / "samples.csv", ("path", "label"), rows)
    says(refused_training(here), here / "samples.csv", "targets.label", "one class only", "'a'")
    class_folder(here / "images", {"single": 4})
    message = refused_training(here, data__source="images", data__valid=0.5)
    says(message, "one class only", "'single'")
    says(refused(here, "init", here / "images", "--out", here / "new"), "only one class folder", "'single'")


def test_a_class_with_one_row(here: Path) -> None:
    """It cannot stand on both sides of a split: it is trained on, and the start of the run names it."""
    draw(here / "images/16.png", 2, 16)
    write_csv(here / "samples.csv", ("path", "label"), [*plain_rows(16), ["images/16.png", "c"]])
    result = command("train", write_config(here, training__epochs=1), "--run", here / "run").ok()
    assert "no validation rows for label=c: only one row each, which is trained on" in result.err
    split = (here / "run" / "split.csv").read_text()
    assert "images/16.png,,train" in split


def test_a_class_with_one_row_is_absent_from_the_scores_by_name(here: Path) -> None:
    """Its F1 counts 0 in the macro F1; beside it stands the mean over the others, in every place where scores are."""
    draw(here / "images/16.png", 2, 16)
    write_csv(here / "samples.csv", ("path", "label"), [*plain_rows(16), ["images/16.png", "c"]])
    result = command("train", write_config(here, training__epochs=1), "--run", here / "run").ok()
    scores = json.loads((here / "run/metrics.json").read_text())["targets"]["label"]
    assert scores["absent"] == ["c"]
    assert scores["macro_f1_present"] == pytest.approx(scores["macro_f1"] * 3 / 2)
    assert (
        f"1 of 3 classes (c), which count as F1 0 in the macro F1 of {scores['macro_f1']:.4f}" in result.err
    )
    assert (
        "no row of c, counted as F1 0; macro F1 of the 2 other classes"
        in command("evaluate", here / "run").ok().out
    )
    assert "macro F1, classes with rows" in (here / "run/report.html").read_text()


def test_a_class_with_one_group(here: Path) -> None:
    """Several images of one person are still one group."""
    rows = people_table(here, 8)
    for row in rows:
        row[4] = "70" if row[1] == "003-1" else "20"
    write_csv(here / "samples.csv", ("path", "사람", "mask", "gender", "age"), rows)
    config = write_config(here, values=PEOPLE, training__epochs=1)
    result = command("train", config, "--run", here / "run").ok()
    assert "no validation rows for age=>=60: only one group each" in result.err


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (0, ("data.path", "is empty in row 5")),
        (1, ("no label in row 5: empty in column 'label'", "data.unlabeled")),
        (2, ("data.group", "is empty in row 5")),
    ],
)
@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_cell(here: Path, column: int, said: tuple[str, ...], cell: str) -> None:
    """A cell with nothing or only spaces in it is named by column and row, whatever its column is for."""
    rows = [[*row, f"g{number // 2}"] for number, row in enumerate(plain_rows(16))]
    rows[4][column] = cell
    write_csv(here / "samples.csv", ("path", "label", "person"), rows)
    says(refused_training(here, data__group="person"), here / "samples.csv", *said)


def test_rows_without_an_answer_in_any_target(here: Path) -> None:
    """An empty cell only masks its target; a row in which all are empty is refused, with its row and columns."""
    rows = [[path, label, str(number)] for number, (path, label) in enumerate(plain_rows(16))]
    rows[2][1] = rows[6][2] = ""
    rows[4][1:] = rows[9][1:] = ["", " "]
    write_csv(here / "samples.csv", ("path", "label", "size"), rows)
    message = refused_training(
        here,
        targets__size={"column": "size", "type": "regression"},
        selection__metric="label.macro_f1",
    )
    says(message, here / "samples.csv", "no label in rows 5, 10", "columns 'label', 'size'")


def test_duplicate_ids(here: Path) -> None:
    """Both rows of the repeated id are named."""
    rows = [[*row, f"{number % 15:03}-1"] for number, row in enumerate(plain_rows(16))]
    write_csv(here / "samples.csv", ("path", "label", "id"), rows)
    message = refused_training(here, data__id="id")
    says(message, here / "samples.csv", "id '000-1'", "rows 1, 16", "unique")


def test_an_image_listed_twice(here: Path) -> None:
    """Without an id column the path is the id; the same image on both sides would flatter the score."""
    write_csv(here / "samples.csv", ("path", "label"), [*plain_rows(16), ["images/00.png", "b"]])
    says(refused_training(here), "'images/00.png'", "rows 1, 17", "unique")


def test_a_row_in_both_tables(here: Path) -> None:
    """A validation table may not repeat training rows."""
    write_csv(here / "valid.csv", ("path", "label"), plain_rows(4))
    says(refused_training(here, data__valid="valid.csv"), "data.valid", "'images/00.png'", "4 in all")


@pytest.mark.parametrize(
    "escape", ["../secret.png", "/etc/passwd", "images/../../secret.png", "link/secret.png"]
)
def test_a_path_that_leaves_images(here: Path, escape: str) -> None:
    """By dots, from the root, or through a link: refused before the file is looked at."""
    inner = here / "inner"
    plain_table(inner, 16)
    draw(here / "secret.png", 0, 1)
    (inner / "link").symlink_to(here)
    write_csv(inner / "samples.csv", ("path", "label"), [*plain_rows(16), [escape, "a"]])
    says(refused_training(inner), "row 17", repr(escape), f"leaves the folder {inner} (data.images)")


# Images


def huge_png(width: int = 100_000, height: int = 100_000) -> bytes:
    """A PNG whose header promises more than any memory holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(10_000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def spoil(folder: Path) -> list[Path]:
    """Four bad files among the sixteen: no image, cut short, 100,000 x 100,000, empty."""
    names = [folder / f"images/{row:02}.png" for row in (1, 6, 9, 14)]
    names[0].write_text("<html>not found</html>")
    names[1].write_bytes(names[1].read_bytes()[:-200])
    names[2].write_bytes(huge_png())
    names[3].write_bytes(b"")
    return names


def test_bad_images_are_all_listed_at_once_before_training(here: Path) -> None:
    """One line a file with its reason; no run directory, and the way out is named."""
    bad = spoil(here)
    message = refused_training(here, lines=5)
    says(message, "4 images cannot be used", 'data.bad_images = "skip"', *bad)
    lines = message.splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == [str(path) for path in bad]
    says(lines[2], "100,000 × 100,000 pixels; allowed: 100,000,000")


def test_bad_images_of_the_validation_table_stop_training_too(here: Path) -> None:
    """The table of data.valid is read as carefully as the source."""
    plain_table(here, 4, "valid.csv", first=16)
    (here / "images/18.png").write_bytes(b"GIF89a")
    says(refused_training(here, lines=2, data__valid="valid.csv"), here / "valid.csv", here / "images/18.png")


def test_bad_images_can_be_skipped(here: Path) -> None:
    """data.bad_images = "skip" goes on with the others and counts the bad ones in status.json and report."""
    bad = spoil(here)
    config = write_config(here, data__bad_images="skip", training__epochs=1)
    result = command("train", config, "--run", "run").ok()
    assert "4 images left out" in result.err
    data = json.loads(Path("run/status.json").read_text())["data"]
    assert [entry["path"] for entry in data["bad_images"]] == [str(path) for path in bad]
    assert data["rows"] == 12
    page = Path("run/report.html").read_text()
    assert all(path.name in page for path in bad)


def test_not_one_good_image(here: Path) -> None:
    """Skipping everything is no training set."""
    for path in (here / "images").iterdir():
        path.write_bytes(b"")
    says(refused_training(here, data__bad_images="skip"), "not one of its 16 images", here / "images/00.png")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "submit"])
def test_bad_images_stop_inference(trained: Path, tmp_path: Path, verb: str) -> None:
    """A prediction for an image that cannot be read would be an invention: none are written."""
    rows = plain_table(tmp_path, 4, "test.csv")
    (tmp_path / "images/02.png").write_bytes(huge_png())
    template = write_csv(tmp_path / "template.csv", ("id", "ans"), [[path, ""] for path, _ in rows])
    place = ("--images", tmp_path)
    arguments: dict[str, list[object]] = {
        "predict": ["predict", trained / "run", tmp_path / "images", "--out", tmp_path / "out.csv"],
        "evaluate": ["evaluate", trained / "run", tmp_path / "test.csv", *place],
        "submit": ["submit", trained / "run", template, *place, "--out", tmp_path / "out.csv"],
    }
    says(refused(tmp_path, *arguments[verb], lines=2), "1 image cannot be used", tmp_path / "images/02.png")


def test_inference_decodes_every_image_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read beforehand only to see whether it can be; a bad one makes it look at all, to name them all."""
    plain_table(tmp_path, 6, "test.csv")
    decoded, decode = list[bytes](), images.decode

    def counted(kind: str, data: bytes, **options: Any) -> object:
        decoded.append(data)
        return decode(kind, data, **options)

    monkeypatch.setattr(images, "decode", counted)
    run = Run.open(trained / "run")
    assert run.predict(tmp_path / "images").height == 6
    assert len(decoded) == len(set(decoded)) == 6
    decoded.clear()
    run.evaluate(tmp_path / "test.csv", tmp_path)
    assert len(decoded) == 6
    for name in ("01.png", "04.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"2 images cannot be used \(--bad-images skip .*:\n.*01\.png.*\n.*04\.png"
    ):
        run.predict(tmp_path / "images")


# The config


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"training__epoch": 3}, ("training.epoch", "did you mean 'epochs'?")),
        ({"dat__source": "x"}, ("dat", "did you mean 'data'?")),
        ({"data__augment": {"flipp": 0.5}}, ("data.augment.flipp", "did you mean 'flip'?")),
        ({"targets__label__colum": "x"}, ("targets.label.colum", "did you mean 'column' or 'columns'?")),
        ({"loss": {"name": "focall"}}, ("loss.name", "'focall'", "did you mean 'focal'?")),
        ({"schedule": {"name": "cosine", "etamin": 0}}, ("schedule.etamin", "did you mean 'eta_min'?")),
        ({"optimizer__name": "adamq"}, ("optimizer.name", "'adamq'", "did you mean 'adam")),
        ({"selection__metric": "f1"}, ("selection.metric", "'f1'", "macro_f1")),
    ],
)
def test_a_key_or_name_misspelt(here: Path, change: dict[str, Any], parts: tuple[str, ...]) -> None:
    """The key as the file has it, and the nearest that is known."""
    says(refused_training(here, **change), *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"training__epochs": 0}, ("training.epochs: found 0", "1")),
        ({"training__batch_size": "32"}, ("training.batch_size: found '32'", "integer")),
        ({"data__valid": 1.5}, ("data.valid: found 1.5", "less than 1")),
        ({"data__sampling": "fair"}, ("data.sampling: found 'fair'", "'shuffle', 'balanced' or 'sqrt'")),
        ({"optimizer__lr": -1.0}, ("optimizer.lr: found -1.0", "greater than 0")),
        ({"optimizer__lr": float("nan")}, ("optimizer.lr: found nan", "finite")),
        ({"model__image_size": [0, 16]}, ("model.image_size: found [0, 16]", "8 to 4096")),
        (
            {"loss": {"name": "cross_entropy", "label_smoothing": 1.0}},
            ("loss.label_smoothing", "less than 1"),
        ),
        ({"loss": {"name": "cross_entropy", "class_weights": [1.0]}}, ("loss.class_weights", "1", "2")),
        ({"seed": -1}, ("seed: found -1", "0")),
        ({"name": "a/b"}, ("name: found 'a/b'",)),
        ({"targets": {}}, ("targets", "1")),
        ({"data__source": None}, ("data.source: missing",)),
        ({"joint": {"targets": ["label", "colour"]}}, ("joint.targets", "'colour'")),
        ({"schedule": {"name": "cosine", "warmup_epochs": 9.0}}, ("schedule.warmup_epochs", "9", "epochs")),
        ({"training__device": "cuda:99"}, ("training.device: found 'cuda:99'",)),
        ({"training__device": "gpu"}, ("training.device: found 'gpu'", "cpu")),
        (
            {"loss": {"name": "soft_f1"}, "training__accumulate": 2},
            ("loss", "accumulate", "found 2", "allowed: 1"),
        ),
    ],
)
def test_a_value_out_of_range(here: Path, change: dict[str, Any], parts: tuple[str, ...]) -> None:
    """The key, what was found and what is allowed."""
    says(refused_training(here, **change), *parts)


def test_several_mistakes_in_one_config(here: Path) -> None:
    """One line each, so that they can be mended in one go."""
    message = refused_training(here, lines=3, training__epochs=0, optimizer__lr=-1.0, dat=1)
    says(message, "training.epochs", "optimizer.lr", "dat")


def test_a_config_that_is_not_toml(here: Path) -> None:
    """The file and the line."""
    (here / "classwise.toml").write_text("seed = 1\n[data\n")
    says(refused(here, "train", "classwise.toml"), "classwise.toml is not TOML", "line 2")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--training.epoch", "3"], ("--training.epoch: no such key", "did you mean --training.epochs?")),
        (["--training.epochs", "many"], ("training.epochs: found 'many'", "integer")),
        (["--training.epochs"], ("--training.epochs: a value is missing",)),
        (["3"], ("found '3'", "--training.epochs")),
        (["--targets.age.column", "age"], ("no column 'age'", "targets.age.column")),
    ],
)
def test_a_wrong_option_of_train(here: Path, options: list[str], parts: tuple[str, ...]) -> None:
    """Options are keys of the config and are checked like them."""
    config = write_config(here, selection__metric="label.macro_f1")
    says(refused(here, "train", config, *options), *parts)


def test_an_unknown_backbone(here: Path) -> None:
    """The nearest names that timm and this package know are offered."""
    says(refused_training(here, model__backbone="resnet_18"), "model.backbone", "'resnet_18'", "'resnet18'")
    says(refused_training(here, model__backbone="small_cn"), "'small_cn'", "'small_cnn'")


# Submissions


@pytest.mark.parametrize(
    ("ids", "parts"),
    [
        (["images/00", "images/99", "images/98"], ("'images/99' has no image", "rows 2, 3")),
        (["images/00", "images/01", "images/00"], ("id 'images/00'", "rows 1, 3", "unique")),
        (["images/00", ""], ("'ImageID'", "is empty in row 2")),
        ([], ("no rows",)),
    ],
)
def test_a_template_with_ids_that_cannot_be_filled(
    trained: Path, tmp_path: Path, ids: list[str], parts: tuple[str, ...]
) -> None:
    """Unknown, repeated or empty ids are named with their rows, and no submission is written."""
    template = write_csv(tmp_path / "template.csv", ("ImageID", "ans"), [[id, ""] for id in ids])
    out = ("--images", trained, "--out", tmp_path / "out.csv")
    says(refused(tmp_path, "submit", trained / "run", template, *out), template, *parts)


def test_a_template_that_wants_another_kind_of_answer(trained: Path, tmp_path: Path) -> None:
    """Numbers where the run answers with words: the template belongs to something else."""
    rows = [["images/00", "0"], ["images/01", "1"]]
    template = write_csv(tmp_path / "template.csv", ("ImageID", "ans"), rows)
    out = ("--images", trained, "--out", tmp_path / "out.csv")
    says(refused(tmp_path, "submit", trained / "run", template, *out), template, "'ans'", "'0'", "a, b")


# Outputs that exist


def test_an_output_that_exists_is_kept_unless_forced(trained: Path, tmp_path: Path) -> None:
    """predict, submit and init keep what is there; --force replaces it."""
    template = write_csv(tmp_path / "template.csv", ("id", "ans"), [["images/00", ""]])
    for name in ("p.csv", "s.csv", "classwise.toml"):
        (tmp_path / name).write_text("precious")
    commands: dict[str, tuple[object, ...]] = {
        "p.csv": ("predict", trained / "run", trained / "images", "--out", tmp_path / "p.csv"),
        "s.csv": (
            *("submit", trained / "run", template, "--images", trained),
            *("--out", tmp_path / "s.csv"),
        ),
        "classwise.toml": ("init", trained / "samples.csv", "--out", tmp_path),
    }
    for name, arguments in commands.items():
        says(refused(tmp_path, *arguments), tmp_path / name, "exists already", "--force")
        command(*arguments, "--force").ok()
        assert (tmp_path / name).read_text() != "precious"


def test_a_run_directory_that_exists_is_kept(here: Path) -> None:
    """--run DIR never trains over what is there, and says how to go on with it."""
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("precious")
    config = write_config(here)
    says(refused(here, "train", config, "--run", "run"), "run already exists", "classwise resume run")


def test_an_output_of_an_unknown_kind(trained: Path, tmp_path: Path) -> None:
    """Predictions are written as .csv, .tsv or .parquet."""
    arguments = ("predict", trained / "run", trained / "images", "--out", tmp_path / "out.xlsx")
    says(refused(tmp_path, *arguments), "--out", ".xlsx", ".csv, .tsv, .parquet")


def test_an_output_below_a_file(here: Path) -> None:
    """What the operating system refuses is one line too."""
    says(refused(here, "train", write_config(here), "--run", "samples.csv/run"), "samples.csv/run")


# Run directories


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to damage."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


def flip_a_bit(run: Path) -> None:
    for name in ("best", "last"):
        path = run / "checkpoints" / name / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def cut_short(run: Path) -> None:
    for name in ("best", "last"):
        path = run / "checkpoints" / name / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])


def lose_manifests(run: Path) -> None:
    for name in ("best", "last"):
        (run / "checkpoints" / name / "manifest.json").unlink()


def lose_all(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, lose_manifests, lose_all])
def test_a_run_without_a_usable_checkpoint(
    trained: Path, tmp_path: Path, run: Path, damage: Callable[[Path], None]
) -> None:
    """resume never starts afresh, and inference never uses damaged weights: each names the checkpoint."""
    damage(run)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    log = (run / "log.txt").read_bytes()
    says(refused(tmp_path, "resume", run), run / "checkpoints", "no usable checkpoint")
    assert (run / "log.txt").read_bytes() == log
    out = tmp_path / "out.csv"
    template = write_csv(tmp_path / "template.csv", ("id", "ans"), [["images/00", ""]])
    for arguments in (
        ("evaluate", run),
        ("predict", run, trained / "images", "--out", out),
        ("submit", run, template, "--images", trained, "--out", out),
    ):
        says(refused(tmp_path, *arguments), run / "checkpoints" / "best")


@pytest.mark.parametrize("verb", ["resume", "evaluate", "report", "predict"])
def test_a_folder_that_is_no_run(here: Path, verb: str) -> None:
    """A folder of something else, and one that is not there, are named."""
    rest = ("images", "--out", "out.csv") if verb == "predict" else ()
    says(refused(here, verb, "images", *rest), "images", "status.json")
    says(refused(here, verb, "gone", *rest), "gone", "no such folder")


def test_resuming_over_other_data_is_refused(trained: Path, run: Path, tmp_path: Path) -> None:
    """Rows that moved across the split would leak: a resumed run wants the table it was trained on."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    data = tmp_path / "data"
    plain_table(data, 18)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace(str(trained), str(data)))
    says(refused(tmp_path, "resume", run), run, "split.csv has 16 rows, the data now 18")


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_rows_with_other_labels_are_other_data(trained: Path, run: Path, tmp_path: Path, verb: str) -> None:
    """Relabeled rows keep their ids and sides, but scores and outputs would mean something else."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    data = tmp_path / "data"
    rows = plain_table(data)
    names = sorted({label for _, label in rows})
    swapped = [[path, names[1 - names.index(label)]] for path, label in rows]
    write_csv(data / "samples.csv", ["path", "label"], swapped)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace(str(trained), str(data)))
    says(refused(tmp_path, verb, run), run, "not what the run was trained on")


@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_an_image_with_other_bytes_is_other_data(trained: Path, run: Path, tmp_path: Path, verb: str) -> None:
    """Under its old name and label: with the store of decoded images, and without."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    data = tmp_path / "data"
    rows = plain_table(data)
    text = (run / "config.toml").read_text().replace(str(trained), str(data))
    (data / rows[3][0]).write_bytes((data / rows[5][0]).read_bytes())
    for kept in ("auto", "off"):
        (run / "config.toml").write_text(text.replace('cache = "auto"', f'cache = "{kept}"'))
        assert f'cache = "{kept}"' in (run / "config.toml").read_text()
        says(refused(tmp_path, verb, run), run, "not what the run was trained on", "images have other bytes")


def test_a_config_that_was_edited_is_refused_by_key(trained: Path, run: Path, tmp_path: Path) -> None:
    """Part of it would be obeyed, and part of it not: each key, what it was and what it is."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    before = tomllib.loads((run / "config.toml").read_text())
    edits: list[tuple[str, str, Any]] = [
        *[("", "seed", 43), ("data", "sampling", "balanced"), ("model", "fit", "crop")],
        *[("optimizer", "weight_decay", 0.5), ("optimizer", "lr", 0.5), ("schedule", "eta_min", 0.5)],
        *[
            ("training", "epochs", 9),
            ("training", "batch_size", 7),
            ("training", "memory_format", "contiguous"),
        ],
        *[("training", "precision", "bf16"), ("training", "compile", True), ("selection", "patience", 3)],
    ]
    for section, key, value in edits:
        config = copy.deepcopy(before)
        table = config[section] if section else config
        was = repr(table[key]) if key in table else "not given"
        table[key] = value
        (run / "config.toml").write_text(tomli_w.dumps(config))
        name = f"{section}.{key}" if section else key
        says(refused(tmp_path, "resume", run), run / "config.toml", f": {name} was {was} and is {value!r}. ")
    (run / "config.toml").write_text(
        tomli_w.dumps(before | {"seed": 43, "loss": before["loss"] | {"label_smoothing": 0.5}})
    )
    message = refused(tmp_path, "resume", run)
    says(message, "seed was 42 and is 43; loss.label_smoothing was 0.0 and is 0.5. Restore these keys")


def test_a_run_goes_on_under_a_classwise_with_more_keys(trained: Path, run: Path, tmp_path: Path) -> None:
    """A key that the run's checkpoints do not know has its default; other than that it is a change; one that is no
    longer known is named."""
    config = load_config(run / "config.toml")
    checkpoint = read_checkpoint(run / "checkpoints/last")

    def with_text(text: Any) -> Checkpoint:
        metadata = checkpoint.metadata | {"config": text}
        return dataclasses.replace(checkpoint, state=checkpoint.state | {"metadata": metadata})

    text = checkpoint.metadata["config"]
    refuse_changed_config(run / "config.toml", config, checkpoint)
    older = "\n".join(line for line in text.splitlines() if not line.startswith("eta_min"))
    assert older != text.rstrip()
    refuse_changed_config(run / "config.toml", config, with_text(older))
    changed = config.model_copy(update={"schedule": config.schedule.model_copy(update={"eta_min": 0.1})})
    with pytest.raises(ConfigError, match=r"schedule\.eta_min was 0\.0 and is 0\.1"):
        refuse_changed_config(run / "config.toml", changed, with_text(older))
    with pytest.raises(CheckpointError, match=r"not supported by this version of classwise: .*etamin"):
        refuse_changed_config(run / "config.toml", config, with_text(text.replace("eta_min", "etamin")))
    for hostile in (3, "[", "data = 3", "", "[data]\n", None, "[[data]]\n"):
        with pytest.raises(CheckpointError):
            refuse_changed_config(run / "config.toml", config, with_text(hostile))


def test_a_device_that_is_none(here: Path) -> None:
    """Only a CPU or a GPU of CUDA's: anything else is refused before a folder is made."""
    for device in ("meta", "mps", "cpu:3", "nonsense"):
        config = write_config(here, training__device=device)
        says(refused(here, "train", config, "--run", "run"), "training.device", device, "cuda:N")


# Ctrl-C


def test_ctrl_c_keeps_a_good_checkpoint(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real SIGINT while training: exit 75, status.json says interrupted, the last checkpoint is whole."""
    say = Console.line

    def press_after_the_first_epoch(console: Console, text: str) -> None:
        say(console, text)
        if text.startswith("epoch 1/"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Console, "line", press_after_the_first_epoch)
    handler = signal.getsignal(signal.SIGINT)
    result = command("train", write_config(here, training__epochs=3), "--run", "run")
    assert result.code == 75
    assert result.out == ""
    assert "Traceback" not in result.err
    assert result.err.splitlines()[-1].endswith("go on with: classwise resume run")
    status = json.loads(Path("run/status.json").read_text())
    assert (status["state"], status["epoch"]) == ("interrupted", 1)
    assert read_checkpoint(Path("run/checkpoints/last")).update == status["update"] == 3
    assert not [name for name in contents(here / "run") if Path(name).name.startswith(".")]
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_before_training_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the data is still being read there is no run to go on with, and none is left behind."""
    bar = Console.bar

    def press(console: Console, items: Any, title: str, *rest: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return bar(console, items, title, *rest, **options)

    monkeypatch.setattr(Console, "bar", press)
    config = write_config(here)
    # A shell that starts the tests in the background has them ignore Ctrl-C; here it is to be heard.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with untouched(here):
            result = command("train", config)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130
    assert result.out == ""
    assert "Traceback" not in result.err
    assert result.err.endswith("stopped; no partial files were left\n")
