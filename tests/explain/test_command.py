"""`classwise explain`, `Run.explain`, and the section of the report, on a small run."""

import json
import shutil
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from classwise.errors import ConfigError, DataError
from classwise.kfold.api import Folds
from classwise.run import explained_rows
from classwise.run.trained import Run
from tests.helpers.browsed import Page
from tests.helpers.browser import Browser
from tests.helpers.scenes import MANY, PLAIN, class_folder, command, many_table, write_config

COUNTS = {"often": 14, "rare <b>": 6, "middle": 10}
CHANGES = {"data__source": "images", "data__valid": 0.4, "report__resamples": 0, "report__baselines": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three classes of different sizes."""
    folder = tmp_path_factory.mktemp("explained")
    class_folder(folder / "images", COUNTS)
    config = write_config(folder, PLAIN, **CHANGES, training__epochs=3)
    command("train", config, "--run", folder / "run").ok()
    return folder / "run"


def image_of(run: Path, label: str = "often", number: int = 0) -> Path:
    return run.parent / "images" / label / f"{number:02}.png"


def test_the_page_of_the_command(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    first, second = image_of(trained), image_of(trained, "rare <b>")
    assert command("explain", trained, first, second, "--out", out).ok().path == out
    page = Page(out)
    assert str(first) in page.text
    assert str(second) in page.text
    assert "With the marked fifth hidden, the probability goes from" in page.text
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 4
    assert all(uri.startswith("data:image/") for uri in images)
    assert "default-src 'none'" in page.source
    assert not page.elements["script"]
    assert "rare <b>" not in page.source, "a label is escaped"
    again = tmp_path / "again.html"
    command("explain", trained, first, second, "--out", again).ok()
    assert again.read_bytes() == out.read_bytes()


def test_a_folder_has_each_map_as_an_image(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    assert command("explain", trained, image_of(trained), "--out", out).ok().path == out / "explain.html"
    assert sorted(path.name for path in out.iterdir()) == ["001-00-map.png", "001-00.png", "explain.html"]
    map_HW = cv2.imread(str(out / "001-00-map.png"), cv2.IMREAD_UNCHANGED)
    assert map_HW.shape == (16, 16)
    refused = command("explain", trained, image_of(trained), "--out", out)
    assert refused.code == 1
    assert "not empty" in refused.err


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_in_a_browser(trained: Path, tmp_path: Path, browser: Browser, width: int) -> None:
    """It is no wider than its window, asks for nothing, and its policy refuses nothing of its own."""
    page = tmp_path / "page.html"
    command("explain", trained, image_of(trained), "--out", page).ok()
    browser.open(page, width=width)
    assert browser.overflow() == 0
    assert browser.script("[...document.images].every((image) => image.naturalWidth > 0)")
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


def test_a_file_without_a_suffix_is_no_folder(trained: Path, tmp_path: Path) -> None:
    """Also with --force; and a name that is too long for a file's gets shorter."""
    (tmp_path / "maps").write_text("mine")
    for options in ((), ("--force",)):
        refused = command("explain", trained, image_of(trained), "--out", tmp_path / "maps", *options)
        assert refused.code == 1
        assert "found a file, allowed: .html, or a folder" in refused.err
    assert (tmp_path / "maps").read_text() == "mine"
    long = tmp_path / f"{'ü' * 120}.png"
    shutil.copy(image_of(trained), long)
    command("explain", trained, long, "--out", tmp_path / "folder").ok()
    assert (tmp_path / "folder" / f"001-{'ü' * 50}-map.png").exists()


def test_sources_are_those_of_predict(trained: Path) -> None:
    """A folder, arrays with ids, and images that are no images."""
    run = Run.open(trained)
    assert [each.id for each in run.explain(trained.parent / "images" / "middle")] == [
        f"{number:02}.png" for number in range(10)
    ]
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    (found,) = run.explain([array], ids=["mine"], label="middle")
    assert (found.id, found.target, found.label) == ("mine", "label", "middle")
    assert found.heat_map.shape == (16, 16) == found.image.shape[:2]
    assert found.heat_map.dtype == np.float32
    assert 0 <= found.heat_map.min() <= found.heat_map.max() <= 1
    predicted = run.predict([array], ids=["mine"])
    assert found.value == pytest.approx(predicted["label_p_middle"][0], abs=1e-6)
    assert found.predicted == predicted["label"][0]
    with pytest.raises(DataError, match="no such"):
        run.explain(trained / "nothing.png")


def test_questions_without_an_answer(trained: Path) -> None:
    run = Run.open(trained)
    image = str(image_of(trained))
    with pytest.raises(ConfigError, match="--target: found 'lable'; did you mean 'label'"):
        run.explain(image, target="lable")
    with pytest.raises(ConfigError, match="--label: no target has a label 'midle'; did you mean 'middle'"):
        run.explain(image, label="midle")
    with pytest.raises(ConfigError, match=r"--method: found 'attention'.*allowed: auto, gradcam, occlusion"):
        run.explain(image, method="attention")
    with pytest.raises(ConfigError, match="--method: found 'cam', allowed: auto"):
        run.explain(image, method="cam")


def test_targets_of_every_type_and_the_joint_class(tmp_path: Path) -> None:
    """Each is asked for by its name; of numbers what makes them larger is explained, and the joint class as one."""
    many_table(tmp_path)
    joint = {"targets": ["label", "level"]}
    config = write_config(tmp_path, MANY, joint=joint)
    command("train", config, "--run", tmp_path / "run").ok()
    image = min((tmp_path / "images").rglob("*.png"))
    for target in (*MANY["targets"], "joint"):
        out = tmp_path / f"{target}.html"
        assert command("explain", tmp_path / "run", image, "--target", target, "--out", out).ok().path == out
        text = Page(out).text
        is_number = MANY["targets"].get(target, {}).get("type") in ("regression", "ranking")
        assert ("what makes the value larger" in text) == is_number
        assert ("the probability goes from" in text) == (not is_number)


def test_the_report_shows_the_rarer_half_of_the_classes(trained: Path) -> None:
    found = json.loads((trained / "explanations.json").read_text(encoding="utf-8"))
    assert [each["label"] for each in found["classes"]] == ["rare <b>", "middle"]
    predictions = {row["id"]: row for row in _rows(trained)}
    for each in found["classes"]:
        assert len(each["mistakes"]) <= 2
        assert len(each["hits"]) <= 2
        for kind, is_right in (("mistakes", False), ("hits", True)):
            certain = [row["probability"] for row in each[kind]]
            assert certain == sorted(certain, reverse=True)
            for row in each[kind]:
                said = predictions[row["id"]]
                assert (row["true"], row["predicted"]) == (said["label_true"], said["label"])
                assert (row["true"] == row["predicted"]) is is_right
                assert each["label"] in (row["true"], row["predicted"])
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "What the model looks at" in page
    assert "rare <b>" not in page


def test_the_report_is_written_again_without_model_and_images(trained: Path, tmp_path: Path) -> None:
    """Its heat maps lie in the run directory; a damaged file of them is named."""
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    shutil.rmtree(moved / "checkpoints")
    command("report", moved).ok()
    first = Page(moved / "report.html")
    assert "What the model looks at" in first.text
    assert (moved / "explanations.json").stat().st_size < 300_000
    (moved / "explanations.json").write_text("{")
    command("report", moved).ok()
    page = Page(moved / "report.html")
    assert "What the model looks at" not in page.text
    assert "explanations.json" in page.text


def test_what_fails_is_a_warning_and_ends_no_run(trained: Path, tmp_path: Path) -> None:
    config = trained.parent / "classwise.toml"
    with mock.patch.object(explained_rows, "explained_model", side_effect=RuntimeError("no memory")):
        result = command("train", config, "--run", tmp_path / "run", "--training.epochs", 1).ok()
    assert "warning: the report has no heat maps: RuntimeError: no memory" in result.err
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
    assert not (tmp_path / "run" / "explanations.json").exists()
    assert "What the model looks at" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_folds_show_rows_by_the_model_that_has_not_seen_them(trained: Path, tmp_path: Path) -> None:
    """And explain by all models together."""
    config = trained.parent / "classwise.toml"
    folds = tmp_path / "folds"
    command("folds", config, "--folds", 2, "--run", folds, "--training.epochs", 1).ok()
    assert "What the model looks at" in (folds / "report.html").read_text(encoding="utf-8")
    (found,) = Folds.open(folds).explain(image_of(trained))
    assert found.value == pytest.approx(
        Folds.open(folds).predict(image_of(trained))[f"label_p_{found.label}"][0], abs=1e-6
    )


def _rows(run: Path) -> list[dict[str, str]]:
    from classwise.data.table import read_table

    return read_table(run / "predictions.csv").to_dicts()
