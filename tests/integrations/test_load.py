"""`classwise.load`: a trained model as a plain module says what `predict` says, and trains in anyone's loop."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from torch.utils.data import DataLoader, Dataset

import classwise
from classwise.errors import CheckpointError, ImageError
from classwise.infer.module import TrainedModel
from tests.helpers.scenes import MANY, many_table, write_config

QUIET: dict[str, Any] = {"training__epochs": 2, "report__resamples": 0, "report__baselines": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with four targets of different types, and folds with the same."""
    folder = tmp_path_factory.mktemp("load")
    many_table(folder)
    classwise.train(write_config(folder, MANY, **QUIET), run=folder / "run", quiet=True)
    config = write_config(folder, MANY, **QUIET, folds__count=2)
    classwise.folds(config, run=folder / "folds", quiet=True)
    return folder


def paths(folder: Path) -> list[Path]:
    return [folder / name for name in pl.read_csv(folder / "samples.csv")["path"].to_list()]


def batch(model: TrainedModel, folder: Path) -> torch.Tensor:
    return torch.stack([model.transform(path) for path in paths(folder)])


def assert_says(model: TrainedModel, images: torch.Tensor, table: pl.DataFrame) -> None:
    """The probabilities, numbers and labels of a table that `predict` made."""
    probabilities, predicted = model.probabilities(images), model.predicted(images)
    for name in model.answer_heads:
        if name in model.labels:
            columns = [f"{name}_p_{label}" for label in model.labels[name]]
            expected = table.select(columns).to_numpy()
        else:
            expected = table[name].to_numpy()
        np.testing.assert_allclose(probabilities[name].numpy(), expected, atol=1e-6, rtol=1e-6)
    assert [model.labels["label"][k] for k in predicted["label"]] == table["label"].to_list()
    assert [model.labels["level"][k] for k in predicted["level"]] == table["level"].to_list()
    tags = ["|".join(np.array(model.labels["tags"])[row.numpy()]) or "|" for row in predicted["tags"]]
    assert tags == table["tags"].to_list()
    assert "size" not in predicted


@pytest.mark.parametrize("tta", ["none", "flip", "flip+scale"])
def test_a_run_says_what_predict_says(folder: Path, tta: str) -> None:
    """For every type of target, and for every view of test-time augmentation."""
    model = classwise.load(folder / "run", tta=tta)
    table = classwise.Run.open(folder / "run", tta=tta).predict(folder / "samples.csv")
    assert_says(model, batch(model, folder), table)


@pytest.mark.parametrize("ensemble", ["probabilities", "logits"])
@pytest.mark.parametrize("tta", ["none", "flip"])
def test_folds_say_their_mean(folder: Path, tta: str, ensemble: str) -> None:
    """With the decision of their out-of-fold rows."""
    model = classwise.load(folder / "folds", tta=tta, ensemble=ensemble)
    assert len(model.models) == 2
    opened = classwise.Folds.open(folder / "folds", tta=tta, ensemble=ensemble)
    assert_says(model, batch(model, folder), opened.predict(folder / "samples.csv"))


@pytest.mark.parametrize("name", ["run", "folds"])
def test_forward_is_what_the_probabilities_come_from(folder: Path, name: str) -> None:
    """Logits and log-probabilities by softmax, label logits by sigmoid, values as they are."""
    model = classwise.load(folder / name)
    images = batch(model, folder)
    outputs, probabilities = model(images), model.probabilities(images)
    assert list(outputs) == ["label", "level", "tags", "size"]
    for key, values in outputs.items():
        values = values.detach().double()
        made = {"tags": values.sigmoid(), "size": values}.get(key)
        made = values.softmax(dim=-1) if made is None else made
        torch.testing.assert_close(made, probabilities[key], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "array", "pillow"])
def test_the_transform_takes_any_kind_of_image(folder: Path, kind: str) -> None:
    """The same tensor, (C, H, W) of uint8, whatever the image is handed over as."""
    model = classwise.load(folder / "run")
    path = paths(folder)[0]
    image = {
        "path": lambda: path,
        "text": lambda: str(path),
        "bytes": path.read_bytes,
        "array": lambda: np.asarray(Image.open(path).convert("RGB")),
        "pillow": lambda: Image.open(path),
    }[kind]()
    tensor = model.transform(image)
    assert tensor.dtype == torch.uint8
    assert tensor.shape == (3, *model.transform.size)
    assert torch.equal(tensor, model.transform(path))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_large_images_are_halved_as_predict_halves_them(folder: Path, tmp_path: Path, suffix: str) -> None:
    """Before they are resized; a JPEG by its decoder."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    path = tmp_path / f"large{suffix}"
    Image.fromarray(noise).resize((509, 371), Image.Resampling.BICUBIC).save(path)
    model = classwise.load(folder / "run")
    found = model.probabilities(model.transform(path)[None])["label"]
    table = classwise.Run.open(folder / "run").predict(path)
    expected = table.select([f"label_p_{label}" for label in model.labels["label"]]).to_numpy()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_the_transform_refuses_what_predict_refuses(folder: Path) -> None:
    """By the name of the file, and images with too many pixels."""
    transform = classwise.load(folder / "run").transform
    with pytest.raises(ImageError, match=r"^the image: not an image of a known kind"):
        transform(b"no image")
    with pytest.raises(ImageError, match=r"absent\.png: "):
        transform("absent.png")


class Labeled(Dataset[Any]):
    """A data set as anyone writes one."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.files[row]), row % 3


def test_it_trains_in_a_loop_of_ones_own(folder: Path) -> None:
    """With a DataLoader whose workers have the transform, an optimizer and a loss of torch's; then `probabilities` are
    those of the new weights, and batch norm is left as it was."""
    model = classwise.load(folder / "run").train()
    loader = DataLoader(
        Labeled(paths(folder), model.transform),
        batch_size=20,
        num_workers=1,
        multiprocessing_context="spawn",
        persistent_workers=True,  # a second start would take as long as the test
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(2):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images)["label"], labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    images = batch(model, folder)
    before = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    assert torch.equal(model.probabilities(images)["label"], model.probabilities(images)["label"])
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_it_is_a_module_as_others_are(folder: Path) -> None:
    """A state dict of tensors that goes into safetensors and back, copies, pickles, another dtype, and no graph breaks
    under torch.compile."""
    model = classwise.load(folder / "run")
    images = batch(model, folder)[:4]
    expected = model(images)["label"]
    assert not model.training
    other = classwise.load(folder / "run")
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    save({key: value.contiguous() for key, value in model.state_dict().items()})
    other.load_state_dict(model.state_dict())
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for made in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), compiled):
        torch.testing.assert_close(made(images)["label"], expected)
    double = model.double()(images)["label"]
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, atol=1e-4, rtol=1e-4)


def test_numbers_from_0_to_255_are_as_bytes(folder: Path) -> None:
    """What a loop of one's own makes of the images may be floats."""
    model = classwise.load(folder / "run")
    images = batch(model, folder)[:4]
    torch.testing.assert_close(model(images.float())["size"], model(images)["size"])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """As by Run.open."""
    with pytest.raises(CheckpointError, match="there is no such folder"):
        classwise.load(tmp_path / "none")
