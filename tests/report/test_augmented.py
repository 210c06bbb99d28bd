"""The sheet of augmented images on the page, from augmented.json."""

import json
from pathlib import Path

import pytest

from classwise.report.page import write_report
from tests.helpers.browsed import Page
from tests.helpers.fabricated import fabricate_run

PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fabricate_run(tmp_path, people=20, epochs=2, images=False, metrics=False, state="running")


def write_sheet(run: Path, *images: dict, kind: str = "augmented") -> None:
    found = {"epoch": 3, "size": [96, 72], "sheets": [{"kind": kind, "images": list(images)}]}
    (run / "augmented.json").write_text(json.dumps(found), encoding="utf-8")


def test_images_have_their_labels_and_files(run: Path) -> None:
    """While the run goes on, too, and without a look at the data; unknown labels are left out."""
    labels = {"mask": "착용", "gender": "", "age": "<30"}
    write_sheet(run, {"id": "000002-1_0", "labels": labels, "uri": PIXEL})
    page = Page(write_report(run))
    part = page.source.split('<section id="augmented">')[1].split("</section>")[0]
    assert PIXEL in part
    assert "as they are in epoch 3, at the model’s size of 96 × 72 pixels" in part
    assert '<bdi title="착용">착용</bdi>' in part
    assert "&lt;30" in part
    assert ">mask0.jpg<" in part
    assert "gender" not in part


def test_the_recipe_is_that_of_the_config(run: Path) -> None:
    """The preset with the parts that are on, and mixing beside it."""
    text = (run / "config.toml").read_text(encoding="utf-8")
    parts = '[data.augment]\npreset = "light"\nflip = 0.5\ncrop = 0.8\nratio = 1.0\nerase = 0.0\n'
    text = text.replace('augment = "light"', "mixup = 0.2\ncutmix = 0.0") + parts
    (run / "config.toml").write_text(text, encoding="utf-8")
    write_sheet(run, {"id": "a", "labels": {}, "uri": PIXEL}, kind="mixup")
    page = Page(write_report(run))
    assert "data.augment = light: flip 0.5, crop 0.8; mixup 0.2." in page.text
    assert "Two augmented images blended into one" in page.text


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org/x.png",
        "data:text/html;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        PIXEL + '"><b>',
        7,
    ],
)
def test_only_small_images_are_let_onto_the_page(run: Path, uri: object) -> None:
    """The files may have been changed: anything but a PNG or JPEG in a data URI is left out."""
    write_sheet(run, {"id": "a", "labels": {}, "uri": uri})
    row = {"id": "a", "true": "x", "predicted": "y", "probability": 0.5}
    rows = [row | {"image": PIXEL, "map": uri}, row | {"image": uri, "map": PIXEL}]
    maps = {"target": "mask", "label": "x", "rows": 3, "mistakes": rows[:1], "hits": rows[1:]}
    (run / "explanations.json").write_text(json.dumps({"classes": [maps]}), encoding="utf-8")
    page = Page(write_report(run))
    assert page.elements["img"] == page.elements["b"] == 0
    assert '<section id="augmented">' not in page.source
    assert '<section id="explanations">' not in page.source


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('augment = "light"', 'augment = "none"', "The model sees the training images as they are"),
        ("epochs = 30", 'epochs = 30\nplan = "probe"', "fitted to features of the images as they are"),
        ("epochs = 30", "epochs = 30", ""),
    ],
)
def test_a_run_that_changes_no_image_says_so(run: Path, old: str, new: str, said: str) -> None:
    """And a run of an earlier version, which has kept no sheet, says nothing of the kind."""
    text = (run / "config.toml").read_text(encoding="utf-8")
    assert old in text
    (run / "config.toml").write_text(text.replace(old, new), encoding="utf-8")
    found = Page(write_report(run)).text
    assert ("as they are" in found) == bool(said)
    assert said in found
