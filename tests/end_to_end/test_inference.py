"""[inference]: test-time augmentation and the mean of folds, through the commands."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import polars as pl
import pytest

import classwise
from classwise.kfold.decisions import applied_lines
from tests.helpers.browsed import Page
from tests.helpers.scenes import MANY, PLAIN, command, draw, many_table, write_config, write_csv

NUMBERS = ("size", "rank")
TYPES: dict[str, Any] = {
    **MANY,
    "targets": {**MANY["targets"], "rank": {"column": "relevance", "type": "ranking", "query": "query"}},
    "training": PLAIN["training"],
}


def image_table(folder: Path) -> None:
    """samples.csv with an answer of every type; images of the model's own size, and their mirror images in `mirror`."""
    many_table(folder)
    for row in range(40):
        path = folder / f"images/{row:02}.png"
        draw(path, row % 3, row, size=16)
        mirror = folder / "mirror" / path.name
        mirror.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(mirror), np.ascontiguousarray(cv2.imread(str(path))[:, ::-1]))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, a run without test-time augmentation in `plain`, one with it in `flipped`, and folds
    in `F`."""
    folder = tmp_path_factory.mktemp("inference")
    image_table(folder)
    config = write_config(folder, TYPES)
    command("train", config, "--run", folder / "plain", "--quiet").ok()
    command("train", config, "--inference.tta", "flip", "--run", folder / "flipped", "--quiet").ok()
    command("folds", config, "--folds", 2, "--run", folder / "F", "--quiet").ok()
    return folder


def predicted(run: Path, images: Path, *options: object) -> pl.DataFrame:
    out = run.parent / "predicted.parquet"
    command("predict", run, images, "--out", out, "--force", *options).ok()
    return pl.read_parquet(out)


def values_of(table: pl.DataFrame) -> np.ndarray:
    """All that is averaged: probabilities, numbers and scores."""
    return table.select(pl.col("^.*_p_.*$"), *NUMBERS).to_numpy().astype(np.float64)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


# Test-time augmentation of a run


def test_flip_is_the_mean_with_the_mirror_images(here: Path) -> None:
    """Of targets of every type: probabilities, numbers and scores."""
    plain, mirror = (values_of(predicted(here / "plain", here / name)) for name in ("images", "mirror"))
    found = values_of(predicted(here / "plain", here / "images", "--tta", "flip"))
    assert found.shape[1] == 3 + 4 + 3 + 2
    assert np.abs(plain - mirror).max(axis=0).min() > 1e-5
    np.testing.assert_allclose(found, (plain + mirror) / 2, rtol=1e-5, atol=1e-6)


def test_flip_and_scale_is_the_mean_of_four_views(here: Path) -> None:
    """The mean with the mirror images of what is enlarged, too, so that a mirror image has the same answer."""
    tables = {
        name: values_of(predicted(here / "plain", here / name, "--tta", "flip+scale"))
        for name in ("images", "mirror")
    }
    flip = values_of(predicted(here / "plain", here / "images", "--tta", "flip"))
    np.testing.assert_allclose(tables["images"], tables["mirror"], rtol=1e-3, atol=2e-3)
    assert np.abs(tables["images"] - flip).max() > 1e-3


def test_a_run_trained_with_the_key_predicts_so_without_the_option(here: Path) -> None:
    """Both runs have the same weights: the key changes nothing that is learned."""
    own = predicted(here / "flipped", here / "images")
    assert own.equals(predicted(here / "plain", here / "images", "--tta", "flip"))
    assert predicted(here / "flipped", here / "images", "--tta", "none").equals(
        predicted(here / "plain", here / "images")
    )


def test_its_metrics_and_predictions_have_the_augmentation_too(here: Path) -> None:
    metrics = read(here / "flipped", "metrics.json")
    assert metrics["inference"] == {"tta": "flip"}
    assert "inference" not in read(here / "plain", "metrics.json")
    again = json.loads(command("evaluate", here / "flipped", "--json").ok().out)
    assert again["value"] == metrics["value"]
    other = json.loads(command("evaluate", here / "plain", "--tta", "flip", "--json").ok().out)
    assert other == {key: value for key, value in again.items() if key != "selection"}
    rows = pl.read_csv(here / "flipped/predictions.csv").sort("id")
    every = predicted(here / "plain", here / "images", "--tta", "flip")
    every = (
        every.with_columns(("images/" + pl.col("id")).alias("id")).join(rows, on="id", how="semi").sort("id")
    )
    np.testing.assert_allclose(rows["label_p_a"].to_numpy(), every["label_p_a"].to_numpy(), rtol=1e-5)


def test_a_submission_has_the_augmentation(here: Path) -> None:
    template = write_csv(
        here / "template.csv", ("id", "size"), [[f"{row:02}.png", "0.5"] for row in range(9)]
    )
    files = []
    for tta in ("none", "flip"):
        out = here / "submission.csv"
        options = ("--images", here / "images", "--out", out, "--force", "--tta", tta)
        command("submit", here / "plain", template, *options).ok()
        files.append(pl.read_csv(out)["size"].to_numpy())
    expected = predicted(here / "plain", here / "images", "--tta", "flip")["size"].to_numpy()[:9]
    np.testing.assert_allclose(files[1], expected, rtol=1e-6)
    assert not np.array_equal(*files)


def edited(run: Path, images: Path, before: str, after: str, *options: object) -> pl.DataFrame:
    """What a run predicts while its config.toml is another one."""
    config = run / "config.toml"
    text = config.read_text(encoding="utf-8")
    assert before in text
    config.write_text(text.replace(before, after), encoding="utf-8")
    try:
        command("resume", run).ok()
        return predicted(run, images, *options)
    finally:
        config.write_text(text, encoding="utf-8")


def test_workers_change_no_byte(here: Path) -> None:
    options = (here / "plain", here / "images")
    found = edited(*options, "workers = 0", "workers = 1", "--tta", "flip+scale")
    assert found.equals(predicted(*options, "--tta", "flip+scale"))


def test_config_toml_of_a_run_may_be_edited(here: Path) -> None:
    """Nothing of [inference] is learned, so it is no other run."""
    found = edited(here / "plain", here / "images", 'tta = "none"', 'tta = "flip"')
    assert found.equals(predicted(here / "flipped", here / "images"))


def test_another_engine_sees_the_same_views(here: Path) -> None:
    found = predicted(here / "plain", here / "images", "--tta", "flip", "--engine", "onnx")
    expected = predicted(here / "plain", here / "images", "--tta", "flip")
    np.testing.assert_allclose(values_of(found), values_of(expected), rtol=1e-4, atol=1e-4)


def test_from_python(here: Path) -> None:
    run = classwise.Run.open(here / "plain", tta="flip")
    assert run.predict(here / "images").equals(predicted(here / "flipped", here / "images"))
    folds = classwise.Folds.open(here / "F", tta="flip", ensemble="logits")
    expected = predicted(here / "F", here / "images", "--tta", "flip", "--ensemble", "logits")
    assert folds.predict(here / "images").equals(expected)


# What is refused


@pytest.fixture(scope="module")
def unflipped(here: Path) -> Path:
    """A run whose training mirrors and crops no image."""
    run = here / "unflipped"
    command("train", here / "classwise.toml", "--data.augment", "none", "--run", run, "--quiet").ok()
    return run


@pytest.mark.parametrize("verb", ["train", "folds"])
def test_training_without_flips_refuses_mirror_images(here: Path, tmp_path: Path, verb: str) -> None:
    options = ("--data.augment.flip", 0, "--inference.tta", "flip", "--run", tmp_path / "run")
    found = command(verb, here / "classwise.toml", *options)
    assert found.code == 1
    assert "inference.tta: found 'flip'" in found.err
    assert "data.augment.flip is 0" in found.err
    assert not (tmp_path / "run").exists()


def test_a_run_trained_without_flips_refuses_them_in_every_command(here: Path, unflipped: Path) -> None:
    template = write_csv(here / "template.csv", ("id", "size"), [["00.png", "0.5"]])
    images = ("--images", here / "images")
    for arguments in (
        ("predict", unflipped, here / "images"),
        ("evaluate", unflipped),
        ("submit", unflipped, template, *images, "--out", here / "refused.csv"),
    ):
        found = command(*arguments, "--tta", "flip+scale")
        assert (found.code, found.out) == (1, "")
        assert "inference.tta: found 'flip+scale'" in found.err
        assert "data.augment.flip is 0" in found.err
    assert not (here / "refused.csv").exists()


def test_training_without_crops_refuses_other_scales(here: Path, tmp_path: Path) -> None:
    options = ("--data.augment.crop", 1, "--run", tmp_path / "run", "--quiet")
    config = here / "classwise.toml"
    found = command("train", config, *options, "--inference.tta", "flip+scale")
    assert found.code == 1
    assert "data.augment.crop is 1" in found.err
    command("train", config, *options, "--inference.tta", "flip").ok()


@pytest.mark.parametrize("option", [("train", "--inference.tta"), ("predict", "--tta")])
def test_auto_is_for_folds(here: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    """The rows of a single run have chosen its epoch."""
    verb, name = option
    arguments = (
        ("train", here / "classwise.toml", "--run", tmp_path / "run")
        if verb == "train"
        else (verb, here / "plain", here / "images")
    )
    found = command(*arguments, name, "auto")
    assert found.code == 1
    assert "inference.tta: found 'auto', which out-of-fold rows decide" in found.err


def test_an_unknown_augmentation_names_those_there_are(here: Path) -> None:
    found = command("predict", here / "plain", here / "images", "--tta", "mirror")
    assert found.code == 1
    assert "inference.tta: found 'mirror'" in found.err
    assert "'flip+scale'" in found.err


def test_an_ensemble_is_of_folds(here: Path, tmp_path: Path) -> None:
    found = command("predict", here / "plain", here / "images", "--ensemble", "logits")
    assert found.code == 1
    assert "--ensemble: found 'logits'" in found.err
    options = ("--inference.ensemble", "logits", "--run", tmp_path / "run")
    assert "has no effect on a single run" in command("train", here / "classwise.toml", *options).ok().err


# Folds


def test_folds_average_models_and_views(here: Path) -> None:
    single = [
        values_of(predicted(here / f"F/fold-{fold}", here / "images", "--tta", "flip")) for fold in range(2)
    ]
    found = values_of(predicted(here / "F", here / "images", "--tta", "flip"))
    np.testing.assert_allclose(found, np.mean(single, axis=0), rtol=2e-5, atol=1e-6)


def test_the_mean_of_logits_is_the_geometric_mean_of_probabilities(here: Path) -> None:
    """Normalized over the classes or levels, or over a label and its absence; numbers have their plain mean."""
    single = [predicted(here / f"F/fold-{fold}", here / "images") for fold in range(2)]
    found = predicted(here / "F", here / "images", "--ensemble", "logits")
    for name in ("label", "level"):
        columns = [column for column in found.columns if column.startswith(f"{name}_p_")]
        p_MNK = np.stack([one.select(columns).to_numpy().astype(np.float64) for one in single])
        geometric_NK = np.exp(np.log(p_MNK).mean(axis=0))
        geometric_NK /= geometric_NK.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.select(columns).to_numpy(), geometric_NK, rtol=1e-4)
    p_MN = np.stack([one["tags_p_x"].to_numpy().astype(np.float64) for one in single])
    yes_N, no_N = np.exp(np.log(p_MN).mean(axis=0)), np.exp(np.log1p(-p_MN).mean(axis=0))
    np.testing.assert_allclose(found["tags_p_x"].to_numpy(), yes_N / (yes_N + no_N), rtol=1e-4)
    np.testing.assert_allclose(
        found["size"].to_numpy(), np.mean([one["size"].to_numpy() for one in single], axis=0), rtol=1e-6
    )


@pytest.fixture(scope="module")
def asked(here: Path) -> Path:
    """Folds of two seeds, with test rows, that are told how to predict."""
    run = here / "asked"
    options = ("--folds", 2, "--repeats", 2, "--data.test", 0.2)
    inference = ("--inference.tta", "flip", "--inference.ensemble", "logits")
    command("folds", here / "classwise.toml", *options, *inference, "--run", run, "--quiet").ok()
    return run


def test_folds_say_how_they_predict(asked: Path) -> None:
    metrics = read(asked, "metrics.json")
    assert metrics["inference"] == {"tta": "flip", "ensemble": "logits"}
    found = json.loads(command("evaluate", asked, "--json").ok().out)
    assert found["value"] == metrics["value"]
    assert found["test"]["value"] == metrics["test"]["value"]


def test_folds_predict_as_their_config_says(here: Path, asked: Path) -> None:
    own = predicted(asked, here / "images")
    assert own.equals(predicted(asked, here / "images", "--tta", "flip", "--ensemble", "logits"))
    for other in (("--tta", "none"), ("--ensemble", "probabilities")):
        assert not own.equals(predicted(asked, here / "images", *other))


def test_rows_out_of_fold_have_the_augmentation_and_the_mean_of_the_seeds(here: Path, asked: Path) -> None:
    """Of both seeds' models of the fold, on the image and its mirror image."""
    table = pl.read_parquet(asked / "oof.parquet")
    for fold in range(2):
        rows = table.filter(pl.col("fold") == fold).sort("id")
        p_SNK = []
        for name in (f"fold-{fold}", f"fold-{fold}-seed-2"):
            both = [predicted(asked / name, here / images) for images in ("images", "mirror")]
            of_rows = [
                one.with_columns(("images/" + pl.col("id")).alias("id"))
                .join(rows, on="id", how="semi")
                .sort("id")
                for one in both
            ]
            p_SNK.append(np.mean([one.select(r"^label_p_.*$").to_numpy() for one in of_rows], axis=0))
        geometric_NK = np.exp(np.log(np.stack(p_SNK).astype(np.float64)).mean(axis=0))
        geometric_NK /= geometric_NK.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(rows.select(r"^label_p_.*$").to_numpy(), geometric_NK, rtol=1e-4)


def test_auto_compares_out_of_fold_and_is_followed(here: Path) -> None:
    run = here / "auto"
    options = ("--folds", 2, "--inference.tta", "auto", "--run", run)
    said = command("folds", here / "classwise.toml", *options).ok().err
    entry = read(run, "metrics.json")["inference"]
    assert entry["asked"] == "auto"
    assert [step["tta"] for step in entry["steps"]] == ["flip", "flip+scale"]
    for step in entry["steps"]:
        assert step["adopted"] == (step["interval"][0] > 0)
        assert f"inference.tta = auto: {step['tta']} against {step['against']}" in said
    adopted = [step["tta"] for step in entry["steps"] if step["adopted"]]
    assert entry["tta"] == (adopted[-1] if adopted else "none")
    assert predicted(run, here / "images").equals(predicted(run, here / "images", "--tta", entry["tta"]))
    assert json.loads(command("evaluate", run, "--json").ok().out)["inference"] == entry

    # A decision is fitted to the rows that have taken the views, and says so.
    decision = read(run, "decision.json")
    assert decision["tuned"] is True
    assert decision["inference"] == {"tta": entry["tta"], "ensemble": "probabilities"}
    assert "inference.tta = 'auto'" in decision["note"]
    assert "note" not in read(here / "F", "decision.json")


def test_evaluate_and_the_page_say_how_predictions_were_made(here: Path, asked: Path) -> None:
    text = "test-time augmentation: flip; mean of the logits of several models"
    assert text in command("evaluate", asked).ok().out
    page = Page(command("report", asked).ok().path)
    assert text.capitalize() in " ".join(page.text.split())
    assert "test-time augmentation: flip\n" in command("evaluate", here / "flipped").ok().out
    assert "test-time augmentation" not in command("evaluate", here / "plain").ok().out


def test_auto_takes_none_where_training_mirrors_no_image(here: Path, tmp_path: Path) -> None:
    options = ("--folds", 2, "--data.augment", "none", "--inference.tta", "auto")
    found = command("folds", here / "classwise.toml", *options, "--run", tmp_path / "F").ok()
    assert "flip is left out, as training does not augment so" in found.err
    entry = read(tmp_path / "F", "metrics.json")["inference"]
    assert entry["tta"] == "none"
    assert [step["against"] for step in entry["steps"]] == [None, None]


def test_what_was_not_compared_cannot_be_chosen_later(here: Path) -> None:
    found = command("predict", here / "F", here / "images", "--tta", "auto")
    assert found.code == 1
    assert f"classwise evaluate {here / 'F'} --tta auto" in found.err
    shown = json.loads(command("evaluate", here / "F", "--tta", "auto", "--json").ok().out)
    assert [step["tta"] for step in shown["inference"]["steps"]] == ["flip", "flip+scale"]


# One file of all folds


@pytest.fixture(scope="module")
def exported(here: Path) -> Path:
    result = command("export", here / "F", "--out", here / "folds.onnx").ok()
    assert result.path == here / "folds.onnx"
    assert result.err == "".join(
        f"note: the file gives the mean of all models, without the {line}\n"
        for line in applied_lines(json.loads((here / "F/decision.json").read_text(encoding="utf-8")))
    )
    return result.path


def by_the_file(file: Path, images: Path, size: int) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes of the images in the order of their names, in batches of `size`, as it is averaged:
    probabilities, values and scores by target. The metadata alone say what is what."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    pixels = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(images.iterdir())]
    assert list(pixels[0].shape[:2]) == json.loads(metadata["image_size"])
    stacked = np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))
    parts = [session.run(None, {"images": stacked[i : i + size]}) for i in range(0, len(stacked), size)]
    found = {}
    for (name, head), *raws in zip(json.loads(metadata["heads"]).items(), *parts, strict=True):
        raw = np.concatenate(raws).astype(np.float64)
        found[name] = {
            "class": np.exp,
            "ordinal": np.exp,
            "multilabel": lambda raw: 1 / (1 + np.exp(-raw)),
        }.get(head["type"], lambda raw: raw)(raw)
        assert not {"adjustment", "mean", "std"} & head.keys()
    return found


@pytest.mark.parametrize("size", [1, 16])
def test_one_file_computes_what_all_folds_predict(here: Path, exported: Path, size: int) -> None:
    """Targets of every type, within 1e-4."""
    found = by_the_file(exported, here / "images", size)
    table = predicted(here / "F", here / "images")
    assert list(found) == ["label", "level", "tags", "size", "rank"]
    for name, values in found.items():
        columns = [name] if name in NUMBERS else [c for c in table.columns if c.startswith(f"{name}_p_")]
        assert values.shape[1] == len(columns)
        np.testing.assert_allclose(values, table.select(columns).to_numpy(), rtol=0, atol=1e-4)


def test_the_file_of_folds_averages_what_the_config_says(here: Path, asked: Path) -> None:
    """Logits here; and it says that it leaves test-time augmentation to others."""
    result = command("export", asked, "--out", here / "asked.onnx").ok()
    assert "the file computes one view of each image; inference.tta = 'flip'" in result.err
    found = by_the_file(result.path, here / "images", 16)
    table = predicted(asked, here / "images", "--tta", "none")
    np.testing.assert_allclose(found["label"], table.select(r"^label_p_.*$").to_numpy(), rtol=0, atol=1e-4)
    mean = predicted(asked, here / "images", "--tta", "none", "--ensemble", "probabilities")
    assert np.abs(found["label"] - mean.select(r"^label_p_.*$").to_numpy()).max() > 1e-6


def test_export_of_folds_refuses_what_export_of_a_run_does(here: Path, exported: Path) -> None:
    for out, said in (("folds.pt", "allowed: .onnx"), ("folds.onnx", "exists already")):
        found = command("export", here / "F", "--out", here / out)
        assert (found.code, found.out) == (1, "")
        assert said in found.err
