"""Images of other kinds from `init` to predictions: 12 bits, four channels, what is left out; the same pixels in
training, validation and prediction."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
import torch
from PIL import Image

from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.data.pixel_format import PixelFormat
from classwise.report.read import read_run
from classwise.report.thumbnails import thumbnails
from classwise.run.api import Run
from tests.helpers.scenes import command, write_config, write_csv

LEAST = {
    "training__epochs": 1,
    "model__image_size": [8, 8],
    "report__baselines": False,
    "report__resamples": 0,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def tiffs(folder: Path, channels: int, highest: int = 255, count: int = 16) -> list[list[str]]:
    """samples.csv with images of two classes: the second has twice the level in its last channel."""
    rows, dtype = [], np.uint16 if highest > 255 else np.uint8
    for number in range(count):
        image = np.random.default_rng(number).integers(0, highest // 3, (12, 12, channels)).astype(dtype)
        image[..., -1] += (number % 2) * (highest - highest // 3)
        image[0, 0] = highest
        path = folder / "images" / f"{number:02}.tif"
        path.parent.mkdir(exist_ok=True)
        options: dict[str, Any] = {"photometric": "rgb"} if channels == 3 else {"photometric": "minisblack"}
        if channels not in (1, 3):
            options |= {"planarconfig": "contig", "extrasamples": ["unspecified"] * (channels - 1)}
        tifffile.imwrite(path, image, **options)
        rows.append([f"images/{path.name}", "ab"[number % 2]])
    write_csv(folder / "samples.csv", ("path", "label"), rows)
    return rows


def test_init_proposes_the_range_of_twelve_bits_and_it_is_used_everywhere(here: Path) -> None:
    """Said, written into the config, kept in the checkpoint; without it training warns."""
    tiffs(here, 3, highest=4095)
    said = command("init", "samples.csv", "--no-hub", "--scratch").ok().err
    assert "data.value_range: samples that become black and white: 16 images have more than 8 bits" in said
    config = tomllib.loads((here / "classwise.toml").read_text())
    assert config["data"]["value_range"] == [0, 4095]

    write_config(here, **LEAST, data__value_range=[0, 4095])
    run = Run.open(command("train", "classwise.toml").ok().path)
    predictor = run._predictor()
    assert predictor.model.metadata.pixels == PixelFormat(value_range=(0, 4095))
    valid = run.folder.split().filter(pl.col("split") == "valid")
    images = [read_image(path, pixels=PixelFormat(value_range=(0, 4095))) for path in valid["path"]]
    batch = np.stack([fit_image(image, (8, 8), "squash") for image in images])
    outputs = predictor.model.eval()(torch.from_numpy(batch).permute(0, 3, 1, 2))
    expected = outputs["label"].softmax(1)[:, 0].tolist()
    found = run.predict(here / "samples.csv").filter(pl.col("id").is_in(valid["id"].to_list()))
    assert found["label_p_a"].to_list() == pytest.approx(expected, abs=1e-5)

    write_config(here, **LEAST)
    said = command("train", "classwise.toml").ok().err
    assert "no sample above 4095, so they are nearly black" in said
    assert "data.value_range = [0, 4095]" in said
    write_config(here, **LEAST, data__value_range=[0, 1000])
    assert "16 images have (such as 00.tif) samples outside" in command("train", "classwise.toml").ok().err


def test_a_range_without_effect_is_said(here: Path) -> None:
    """Images of 8 bits use all of it already."""
    tiffs(here, 3)
    write_config(here, **LEAST, data__value_range=[0, 4095])
    assert "data.value_range = [0.0, 4095.0]: has no effect" in command("train", "classwise.toml").ok().err


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("backbone", ["small_cnn", "test_resnet"])
def test_other_numbers_of_channels_train_resume_and_predict(here: Path, channels: int, backbone: str) -> None:
    """With augmentation that turns and warps, and own normalization."""
    tiffs(here, channels)
    size = [32, 32] if backbone == "test_resnet" else [8, 8]
    numbers = [0.1 + 0.1 * c for c in range(channels)]
    options = LEAST | {"model__backbone": backbone, "model__image_size": size, "model__channels": channels}
    options |= {"model__mean": numbers, "model__std": numbers, "data__augment": {"preset": "strong"}}
    write_config(here, **options)
    run = Run.open(command("train", "classwise.toml").ok().path)
    shown = thumbnails(read_run(run.path), run.folder.split()["id"].to_list())
    assert all(thumbnail.uri for thumbnail in shown.values())
    metadata = run._predictor().model.metadata
    assert (metadata.channels, list(metadata.mean), list(metadata.std)) == (channels, numbers, numbers)
    assert command("resume", run.path).code == 0
    assert run.predict(here / "samples.csv").height == 16
    assert json.loads((run.path / "metrics.json").read_text())["samples"] == 4


def test_gray_with_alpha_trains_and_predicts(here: Path) -> None:
    """PNGs of two channels with model.channels = 2: the class is in the alpha channel alone."""
    rows = []
    for number in range(16):
        gray = np.random.default_rng(number).integers(0, 255, (12, 12), np.uint8)
        alpha = np.full((12, 12), 90 + 120 * (number % 2), np.uint8)
        Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)]).save(here / f"{number:02}.png")
        rows.append([f"{number:02}.png", "ab"[number % 2]])
    write_csv(here / "samples.csv", ("path", "label"), rows)
    write_config(here, **LEAST | {"model__channels": 2, "training__epochs": 6})
    run = Run.open(command("train", "classwise.toml").ok().path)
    assert run.predict(here / "samples.csv")["label"].to_list() == [row[1] for row in rows]


def test_channels_that_the_files_do_not_have_are_refused(here: Path) -> None:
    """By the file, with the key."""
    tiffs(here, 3)
    write_config(here, **LEAST, model__channels=4)
    done = command("train", "classwise.toml")
    assert done.code == 1
    assert "TIFF: 3 channels; allowed: 4, as model.channels says" in done.err


def test_saturation_and_normalization_fit_the_channels(here: Path) -> None:
    """Only RGB has a saturation; one number for each channel."""
    tiffs(here, 4)
    write_config(here, **LEAST, model__channels=4, data__augment={"preset": "light", "saturation": 0.2})
    assert (
        "data.augment.saturation: found 0.2, but model.channels is 4"
        in command("train", "classwise.toml").err
    )
    write_config(here, **LEAST, model__channels=4, model__mean=[0.5, 0.5, 0.5])
    assert "mean: found 3 numbers, but model.channels is 4" in command("train", "classwise.toml").err


def test_frames_are_counted(here: Path) -> None:
    """Of animations the first frame is used, which is said."""
    rows = tiffs(here, 3)
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 200)]
    for number in range(2):
        frames[number].save(here / f"{number}.gif", save_all=True, append_images=frames[::-1])
        rows.append([f"{number}.gif", "ab"[number]])
    write_csv(here / "samples.csv", ("path", "label"), rows)
    write_config(here, **LEAST)
    said = command("train", "classwise.toml").ok().err
    assert "2 images have (such as 0.gif) several frames or pages, of which the first is used" in said


def test_bad_images_that_are_skipped_are_named_by_suffix_and_class(here: Path) -> None:
    """A class that would lose all its images is an error, whatever was asked for."""
    rows = tiffs(here, 3)
    (here / "bad.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n")
    write_csv(here / "samples.csv", ("path", "label"), [*rows, ["bad.jp2", "a"]])
    write_config(here, **LEAST, data__bad_images="skip")
    said = command("train", "classwise.toml").ok().err
    assert "1 image left out, since unusable (data.bad_images = skip): 1 .jp2; 1 of 'a'" in said

    write_csv(here / "samples.csv", ("path", "label"), [*rows, ["bad.jp2", "c"]])
    done = command("train", "classwise.toml")
    assert done.code == 1
    assert (
        "data.bad_images = skip would leave out all images of 'c' (column 'label', 1 rows): 1 .jp2"
        in done.err
    )
