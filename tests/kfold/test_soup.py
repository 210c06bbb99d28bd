"""The mean of the folds' models: weights by hand, batch norms' statistics, what is refused, and the command."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm

import classwise
from classwise.compose.dataset import prepare
from classwise.compose.loaders import split_images
from classwise.config.load import load_config, make_config
from classwise.console import Console
from classwise.errors import CheckpointError, ConfigError
from classwise.kfold.plan import folds_config
from classwise.kfold.soup import check_soup, mean_weights
from classwise.run.checkpoint import read_checkpoint, restored_model
from tests.helpers.pretrained import probed_config
from tests.helpers.scenes import class_folder, command

FOLDS = 3


def test_the_mean_is_the_mean_of_each_weight() -> None:
    models = [torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)) for _ in range(3)]
    for number, model in enumerate(models):
        model[1].num_batches_tracked.fill_(7 + number)
    found = mean_weights(model.state_dict() for model in models)
    by_hand = sum(model[0].weight.double() for model in models) / 3
    assert torch.equal(found["0.weight"], by_hand.float())
    assert found["1.num_batches_tracked"] == 7
    assert found["0.weight"].dtype == torch.float32


def test_models_of_other_shapes_have_no_mean() -> None:
    with pytest.raises(ValueError, match="same weights"):
        mean_weights([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}])
    with pytest.raises(ValueError, match="no model"):
        mean_weights([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"backbone": "small_cnn", "weights": "none"}},
            "folds.soup: found true, but model.weights is 'none'",
        ),
        ({"targets": {"age": {"column": "age", "type": "regression"}}}, "'age' is a regression target"),
    ],
)
def test_models_without_a_mean_are_refused_before_any_is_trained(
    changes: dict[str, Any], message: str
) -> None:
    tree = {
        "data": {"source": "t.csv"},
        "targets": {"kind": {"column": "kind"}},
        "model": {"backbone": "resnet18", "weights": "w.safetensors"},
        "folds": {"soup": True},
    }
    with pytest.raises(ConfigError, match=message):
        check_soup(folds_config(make_config(tree | changes)))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tuned folds with a soup and test rows, in `F`."""
    folder = tmp_path_factory.mktemp("soup")
    class_folder(folder / "images", {"a": 20, "b": 20})
    config = probed_config(
        folder,
        training__plan="finetune",
        training__epochs=2,
        data__source="images",
        data__test=0.25,
        targets={"label": {"column": "label"}},
    )
    options = ["--folds", FOLDS, "--folds.soup", "true", "--run", folder / "F"]
    assert "averaging the weights of 3 models" in command("folds", config, *options).ok().err
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "checkpoints/best/model.safetensors")


def test_the_soup_has_the_mean_of_the_weights_and_statistics_of_its_own(here: Path) -> None:
    folds = [weights(here / f"F/fold-{fold}") for fold in range(FOLDS)]
    soup = weights(here / "F/soup")
    for name, tensor in soup.items():
        mean = torch.stack([one[name].double() for one in folds]).mean(dim=0)
        if name.endswith(("running_mean", "running_var")):
            assert not torch.allclose(tensor.double(), mean, rtol=1e-3)
        elif not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-8)


def test_the_statistics_are_those_of_the_training_images(here: Path) -> None:
    """Of the first batch norm, whose inputs need no other norm: the mean over whole batches, by hand."""
    config = load_config(here / "F/soup/config.toml")
    splits = prepare(config, Console(quiet=True), use_cache=False)
    model = restored_model(read_checkpoint(here / "F/soup/checkpoints/best")).eval()
    norm = next(module for module in model.modules() if isinstance(module, _BatchNorm))
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    images = split_images(splits.train, config, model.metadata)
    size = config.training.batch_size
    whole = len(images) // size * size
    assert whole
    with torch.no_grad():
        for start in range(0, whole, size):
            rows = [
                images.transform(images.read(row), epoch=0, row=row)[0] for row in range(start, start + size)
            ]
            model(torch.from_numpy(np.stack(rows).transpose(0, 3, 1, 2)))
    hook.remove()
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in seen]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)


def test_the_soup_is_a_run_and_is_scored_on_the_test_rows_alone(here: Path, tmp_path: Path) -> None:
    soup = classwise.Run.open(here / "F/soup")
    assert soup.metrics["value"] is None
    assert soup.metrics["test"]["samples"] == 10
    assert set(soup.metrics["test"]["against_folds"]) == {"difference", "interval"}
    assert soup.status["reason"] == "the mean of the weights of 3 models"
    again = soup.evaluate()
    assert again["test"]["value"] == pytest.approx(soup.metrics["test"]["value"])
    assert (here / "F/soup/report.html").exists()
    out = tmp_path / "p.csv"
    command("predict", here / "F/soup", here / "images", "--out", out).ok()
    assert len(out.read_text(encoding="utf-8").splitlines()) == 41
    trained = soup.folder.split().filter(split="train").height
    assert trained == 30


def test_the_soup_is_made_once_and_again_where_it_is_gone(here: Path, tmp_path: Path) -> None:
    copy = tmp_path / "F"
    shutil.copytree(here / "F", copy)
    before = weights(copy / "soup")
    assert "nothing to do" in command("resume", copy).ok().err
    shutil.rmtree(copy / "soup")
    command("resume", copy, "--quiet").ok()
    after = weights(copy / "soup")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert json.loads((copy / "status.json").read_text(encoding="utf-8"))["soup"] == "finished"


def test_folds_that_are_done_get_no_mean_of_random_starts(here: Path, tmp_path: Path) -> None:
    """`resume` refuses what `folds` would have refused."""
    shutil.copytree(here / "images", tmp_path / "images")
    model = {"model__backbone": "small_cnn", "model__weights": "none", "training__plan": "finetune"}
    config = probed_config(
        tmp_path, training__epochs=1, data__source="images", targets={"label": {"column": "label"}}, **model
    )
    command("folds", config, "--folds", 2, "--run", tmp_path / "F", "--quiet").ok()
    file = tmp_path / "F/config.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("soup = false", "soup = true"), encoding="utf-8")
    found = command("resume", tmp_path / "F")
    assert found.code == 1
    assert "folds.soup: found true, but model.weights is 'none'" in found.err


def test_a_soup_cannot_be_trained_on(here: Path) -> None:
    found = command("resume", here / "F/soup", "--epochs", 5)
    assert found.code == 1
    assert "Traceback" not in found.err
    with pytest.raises(CheckpointError):
        classwise.resume(here / "F/soup", epochs=5)


def test_heads_on_a_frozen_backbone_keep_its_statistics(here: Path, tmp_path: Path) -> None:
    """All models have the same, with which their heads were fitted; without test rows there is no score, which is
    said."""
    shutil.copytree(here / "images", tmp_path / "images")
    config = probed_config(
        tmp_path,
        training__plan="probe",
        data__source="images",
        targets={"label": {"column": "label"}},
    )
    options = ["--folds", FOLDS, "--folds.soup", "true", "--run", tmp_path / "F"]
    assert "the soup has no score" in command("folds", config, *options).ok().err
    first, soup = weights(tmp_path / "F/fold-0"), weights(tmp_path / "F/soup")
    statistics = [name for name in soup if name.endswith("running_var")]
    assert statistics
    assert all(torch.equal(soup[name], first[name]) for name in statistics)
