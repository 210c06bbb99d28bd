"""The sheet of training images as the model sees them, against the batches that the loop gets."""

import base64
import io
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from classwise.compose.augmented import IMAGES, MIXED, augmented_images, sheet_rows
from classwise.compose.loaders import build_data
from tests.helpers.noisy_images import AREA, CPU, KIND, SIDE, TAGS, Scene

Build = Callable[..., Scene]
TARGETS = {"kind": KIND, "tags": TAGS, "area": AREA}
MEAN = {"metric": "kind.macro_f1"}


def pixels(uri: str) -> np.ndarray:
    """The image in a data URI; PNG keeps every pixel."""
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def test_the_images_are_those_of_the_first_epoch(scene: Build) -> None:
    """Byte for byte what the loop's batches hold, for every row of the sheet."""
    s = scene({"kind": KIND}, data={"augment": "strong"})
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    batches = {}
    for batch in (batch for update in data.updates(0) for batch in update):
        for row, image_CHW in zip(batch.rows.tolist(), batch.images, strict=True):
            batches[s.splits.train.samples.ids[row]] = image_CHW.permute(1, 2, 0).numpy()
    found = augmented_images(s.config, s.splits, data)
    assert found is not None
    assert (found["epoch"], found["size"]) == (1, [SIDE, SIDE])
    (sheet,) = found["sheets"]
    assert sheet["kind"] == "augmented"
    for image in sheet["images"]:
        np.testing.assert_array_equal(pixels(image["uri"]), batches[image["id"]])
    assert found == augmented_images(s.config, s.splits, data)


def test_the_classes_come_in_turn_the_rarest_first(scene: Build) -> None:
    """Each row once, and of a common class no more than of the others as long as these have rows; rows without a
    label are left out."""
    s = scene({"kind": KIND}, data={"augment": "light"})
    rows = sheet_rows(s.splits, 9)
    classes = s.splits.classes(s.splits.train)
    assert classes is not None
    counts = Counter(number for number in classes.tolist() if number >= 0)
    rarest_first = sorted(counts, key=lambda number: counts[number])
    assert [int(classes[row]) for row in rows[: len(counts)]] == rarest_first
    assert len(set(rows)) == len(rows) == 9
    assert sorted(sheet_rows(s.splits, 1000)) == np.flatnonzero(classes >= 0).tolist()


def test_an_epoch_with_a_frozen_backbone_sees_no_images(scene: Build) -> None:
    """The sheet is of the first epoch that does."""
    s = scene({"kind": KIND}, data={"augment": "light"}, training={"freeze_epochs": 2})
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    found = augmented_images(s.config, s.splits, data)
    assert found is not None
    assert found["epoch"] == 3


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"data": {"augment": "light"}, "training": {"plan": "probe"}},
    ],
    ids=["no augmentation", "a linear probe"],
)
def test_a_run_that_changes_no_image_has_no_sheet(scene: Build, sections: dict) -> None:
    """Without augmentation and mixing, and where nothing but heads on plain features is trained."""
    s = scene({"kind": KIND}, **sections)
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    assert augmented_images(s.config, s.splits, data) is None


def test_mixed_images_have_mixed_labels(scene: Build) -> None:
    """A sheet of each kind that is on, also where few updates are mixed: shares of classes, parts of labels, numbers
    in between."""
    mixed = {"augment": "light", "mixup": 1.0, "cutmix": 1.0, "mix_share": 0.01}
    s = scene(TARGETS, data=mixed, selection=MEAN)
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    found = augmented_images(s.config, s.splits, data)
    assert found is not None
    sheets = {sheet["kind"]: sheet["images"] for sheet in found["sheets"]}
    assert list(sheets) == ["augmented", "mixup", "cutmix"]
    assert [len(images) for images in sheets.values()] == [IMAGES, MIXED, MIXED]
    for kind in ("mixup", "cutmix"):
        labels = [image["labels"]["kind"] for image in sheets[kind]]
        assert any("%" in label for label in labels)
        for label in labels:
            shares = [float(part.rsplit(" ", 1)[1].rstrip("%")) for part in label.split(" + ") if "%" in part]
            assert not shares or sum(shares) <= 101
    plain = {image["id"]: image for image in sheets["augmented"]}
    for image in sheets["mixup"]:
        changed = image["uri"] != plain[image["id"]]["uri"]
        assert changed or image["labels"] == plain[image["id"]]["labels"]


def test_labels_are_in_words(scene: Build) -> None:
    """A class by its name, several labels with commas, a number as it is, and nothing where the label is unknown."""
    s = scene(TARGETS, data={"augment": "light"}, selection=MEAN)
    data, _ = build_data(s.config, s.splits, s.model, CPU)
    found = augmented_images(s.config, s.splits, data)
    assert found is not None
    frame = s.splits.train.samples.frame
    rows = {row["path"]: row for row in frame.iter_rows(named=True)}
    for image in found["sheets"][0]["images"]:
        row = rows[image["id"].rsplit("/", 1)[-1]]
        assert image["labels"]["kind"] == (row["kind"] or "")
        assert image["labels"]["tags"] == ", ".join(tag for tag in row["tags"].split("|") if tag)
        assert image["labels"]["area"] == str(int(float(row["area"])))
