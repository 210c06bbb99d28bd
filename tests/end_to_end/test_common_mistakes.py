"""The twelve mistakes of the competition's baseline and lecture, each with a test that fails where it is made.

Where it is cheap, a test makes the mistake itself too and shows that its answer is another one.
"""

import importlib
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

import classwise
import classwise.run.api
from classwise.cli_options import parse_overrides
from classwise.compose.dataset import prepare
from classwise.compose.loaders import build_data
from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.settings import build_settings
from classwise.compose.splits import DatasetSplits, Split
from classwise.compose.state import build_model, build_state
from classwise.config.load import load_config, make_config
from classwise.console import Console
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.data.loader import Loader
from classwise.data.sources import read_source
from classwise.data.split import Stratum, split_rows
from classwise.data.targets import ClassTarget
from classwise.errors import ConfigError
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.metrics.collection import MetricCollection
from classwise.model.average import NoAverage
from classwise.model.classifier import Classifier
from classwise.model.heads import ClassHead
from classwise.run.checkpoint import RunCheckpointer, newest_checkpoint, read_checkpoint, restore
from classwise.run.predictor import Predictor
from classwise.suggest.config import init
from classwise.training import loop
from classwise.training.state import Progress, TrainState
from tests.helpers.scenes import PLAIN, command, draw, plain_table, write_config, write_csv

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Parts:
    """What the loop works with, built from a config as `classwise train` builds it."""

    splits: DatasetSplits
    state: TrainState
    data: TrainingData
    valid: ValidationData
    metrics: MetricCollection
    settings: loop.Settings

    def train(self, checkpointer: loop.Checkpointer) -> str:
        """The whole loop."""
        return loop.train(self.state, self.data, self.valid, self.metrics, self.settings, checkpointer)


def build(folder: Path, **changes: Any) -> Parts:
    """The parts of a run on the table in `folder`, whose every epoch can be the best."""
    changes = {"selection__first_epoch": 1, **changes}
    config = load_config(write_config(folder, PLAIN, **changes))
    splits = prepare(config, Console(quiet=True))
    heads = build_heads(config, splits)
    model = build_model(config, heads)
    data, valid = build_data(config, splits, model, CPU)
    return Parts(
        splits,
        build_state(config, model, build_criterion(config, splits), data, CPU),
        data,
        valid,
        MetricCollection(heads, splits.label_lists, splits.joint),
        build_settings(config, CPU),
    )


class Kept(list[bool]):
    """A checkpointer that remembers which epochs were called the best."""

    def save(self, state: TrainState, best: bool) -> None:
        self.append(best)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[dict[str, float]]) -> None:
    """Epochs that train nothing and score what the script says."""

    def train_one_epoch(state: TrainState, windows: Any, data: TrainingData, *rest: Any) -> None:
        for _ in range(data.updates_per_epoch - state.progress.update_in_epoch):
            state.progress.end_update(0.0, 1)

    monkeypatch.setattr(loop, "train_one_epoch", train_one_epoch)
    monkeypatch.setattr(loop, "evaluate", lambda *rest: scores.pop(0))


KINDS = ("mask1.jpg", "mask2.png", "mask3.jpg", "mask4.jpeg", "mask5.jpg", "incorrect_mask.jpg", "normal.png")


def competition_tree(folder: Path, people: int = 18) -> Path:
    """The face-mask competition's tree: seven tiny images a person, a `._` file, an id that stands twice."""
    rows = []
    for number in range(people):
        id = "000600-1" if number in (3, 8) else f"{number:06}"
        gender, age = ("male", "female")[number % 2], (20, 45, 60)[number % 3]
        name = f"{id}_{gender}_Asian_{age}_{number}"
        for kind, file in enumerate(KINDS):
            draw(folder / "train" / "images" / name / file, kind % 3, number, size=16)
        (folder / "train" / "images" / name / "._mask1.jpg").write_bytes(b"junk")
        rows.append([id, gender, "Asian", age, name])
    write_csv(folder / "train" / "train.csv", ("id", "gender", "race", "age", "path"), rows)
    return folder


def test_mistake_1_split_by_image(tmp_path: Path) -> None:
    """1. 'split by image, so one person is on both sides': a config from `init` splits by person."""
    config = load_config(init(competition_tree(tmp_path / "tree"), tmp_path))
    splits = prepare(config, Console(quiet=True))
    train, valid = splits.train.samples, splits.valid.samples
    assert train.groups is not None
    assert valid.groups is not None
    assert len(train) + len(valid) == 18 * 7
    assert len(set(train.groups) | set(valid.groups)) == 17
    assert not set(train.groups) & set(valid.groups)

    # The mistake: the same rows split one by one put nearly everybody on both sides.
    samples = read_source(Path(config.data.source), Path(config.data.images), "path", None, "person")
    strata = [
        stratum
        for target in splits.targets
        for stratum in target.strata(
            np.concatenate([split.labels[target.name] for split in (splits.train, splits.valid)])
        )
    ]
    groups = np.array(train.groups + valid.groups)
    by_row = split_rows(strata, None, 0.2, 42)
    assert len(samples) == len(by_row)
    assert len(set(groups[by_row]) & set(groups[~by_row])) > 10


def test_mistake_2_profiles_drawn_with_replacement() -> None:
    """2. 'a profile split drawn with replacement (18.1 % instead of 20 %)': every label gives its exact share."""
    sizes = (553, 409, 83, 728, 818, 109)  # the competition's people: gender by age
    profile_N = np.repeat(np.arange(6), sizes)
    labels = {"gender": profile_N // 3, "age": profile_N % 3}
    names = {"gender": ("male", "female"), "age": ("<30", "30 to <60", ">=60")}
    people = [str(number) for number in range(2700)]
    strata = [Stratum(name, label_N, names[name], required=True) for name, label_N in labels.items()]
    valid_N = split_rows(strata, people, 0.2, seed=42)
    assert valid_N.sum() == 540
    for label_N in labels.values():
        for label in np.unique(label_N):
            assert abs(valid_N[label_N == label].sum() - 0.2 * (label_N == label).sum()) < 1
    for profile, size in enumerate(sizes):
        assert abs(valid_N[profile_N == profile].sum() - 0.2 * size) < 2

    # The mistake: a fifth of each profile drawn with replacement leaves fewer people.
    rng = np.random.default_rng(0)
    drawn = [rng.choice(np.flatnonzero(profile_N == p), round(0.2 * size)) for p, size in enumerate(sizes)]
    assert len(np.unique(np.concatenate(drawn))) / 2700 == pytest.approx(0.181, abs=0.006)


def test_mistake_3_lists_kept_on_the_class(tmp_path: Path) -> None:
    """3. 'lists kept on the class, so a second data set appends to the first': each has its own rows."""
    for name, count in (("one", 16), ("two", 8)):
        plain_table(tmp_path / name, count)
    one, two = build(tmp_path / "one"), build(tmp_path / "two")
    assert len(one.data.ids) + len(one.valid) == 16
    assert len(two.data.ids) + len(two.valid) == 8
    one.metrics.update({"label": torch.eye(2)}, {"label": torch.arange(2)})
    assert two.metrics.compute()["targets"]["label"]["samples"] == 0


def test_mistake_3_no_class_of_the_package_holds_a_list() -> None:
    """3. again, for every class there is: nothing that grows stands on a class, where all objects share it."""
    found = []
    for module in modules():
        for name, thing in vars(module).items():
            if isinstance(thing, type) and thing.__module__ == module.__name__:
                shared = {key for key, value in vars(thing).items() if isinstance(value, list | set | dict)}
                found += [
                    f"{module.__name__}.{name}.{key}"
                    for key in shared
                    if not key.startswith(("__", "model_", "_abc_", "_field"))
                ]
    assert found == []


def modules() -> Iterator[Any]:
    """Every module of the package."""
    for info in pkgutil.walk_packages(classwise.__path__, "classwise."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def test_mistake_4_augmented_validation(tmp_path: Path) -> None:
    """4. 'training augmentation applied to validation': validation sees the image as it is, every time."""
    plain_table(tmp_path)
    parts = build(tmp_path, data__augment="strong")
    paths, size = parts.splits.valid.samples.paths, (16, 16)
    plain = np.stack([fit_image(read_image(path), size, "squash") for path in paths])
    for _ in range(2):
        seen = torch.cat([batch.images for batch in parts.valid.batches()])
        np.testing.assert_array_equal(seen.permute(0, 2, 3, 1).numpy(), plain)

    # Training is augmented, and differently in each epoch; so the above is not an augmentation that does nothing.
    first, second = (
        {
            int(row): image
            for window in parts.data.updates(epoch)
            for b in window
            for row, image in zip(b.rows, b.images, strict=True)
        }
        for epoch in (0, 1)
    )
    assert first.keys() == second.keys()
    assert sum(torch.equal(first[row], second[row]) for row in first) == 0


def test_mistake_5_drop_last_in_validation(tmp_path: Path) -> None:
    """5. '`drop_last` in validation while dividing by the full length': ten rows in batches of four all count."""
    labels_N = np.arange(10) % 2
    for row, kind in enumerate(labels_N):
        draw(tmp_path / f"{row}.png", int(kind), row)
    images = ImageDataset([tmp_path / f"{row}.png" for row in range(10)], (28, 28), "squash", 10**6)
    valid = ValidationData(Loader(images, {"label": labels_N}, 4, 0))
    assert [len(batch) for batch in valid.batches()] == [4, 4, 2]

    class KnowsStripes(nn.Module):
        """Lying stripes are the brighter in the rows, standing ones in the columns: never wrong."""

        def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
            gray_BHW = images_BCHW.float().mean(1)
            return {"label": torch.stack([gray_BHW.mean(2).std(1), gray_BHW.mean(1).std(1)], dim=1)}

    model: Any = KnowsStripes()
    criterion, nothing = Criterion({"label": CrossEntropy()}, {"label": 1.0}), Any
    state = TrainState(model, criterion, *3 * [nothing], NoAverage(model))  # type: ignore[arg-type]
    settings = loop.Settings(42, 1, "accuracy", True, 1, None, math.inf, "fp32", CPU)
    board = MetricCollection({"label": ClassHead(2)}, {"label": ("lying", "standing")})
    scores = loop.evaluate(state, valid, board, settings)
    assert scores["accuracy"] == 1.0
    assert board.compute()["targets"]["label"]["confusion"] == [[5, 0], [0, 5]]

    # The mistake: eight right answers over ten rows.
    assert sum(len(batch) for batch in valid.batches() if len(batch) == 4) / len(valid) == 0.8


def test_mistake_6_height_and_width_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """6. 'height and width swapped between training and inference': every image that the model ever sees is 24
    high and 16 wide, and predictions do not depend on which command makes them."""
    plain_table(tmp_path)
    shapes: set[tuple[int, ...]] = set()
    forward = Classifier.forward

    def watched(model: Classifier, images_BCHW: Tensor) -> dict[str, Tensor]:
        shapes.add(tuple(images_BCHW.shape[1:]))
        return forward(model, images_BCHW)

    monkeypatch.setattr(Classifier, "forward", watched)
    config = write_config(tmp_path, model__image_size=[24, 16], training__epochs=1)
    run = classwise.run.api.train(config, tmp_path / "run", quiet=True)
    assert shapes == {(3, 24, 16)}
    shapes.clear()
    assert run.evaluate()["value"] == run.metrics["value"]
    run.predict(tmp_path / "images")
    assert shapes == {(3, 24, 16)}

    # The mistake: the checkpoint's model answers otherwise when the sides are swapped.
    predictor = Predictor.of(read_checkpoint(run.path / "checkpoints" / "best"))
    assert predictor.model.metadata.image_size == (24, 16)
    paths = sorted((tmp_path / "images").iterdir())
    tall, wide = (
        torch.from_numpy(np.stack([fit_image(read_image(path), size, "squash") for path in paths])).permute(
            0, 3, 1, 2
        )
        for size in ((24, 16), (16, 24))
    )
    with torch.no_grad():
        labels = [predictor.model.eval()(images)["label"] for images in (tall, wide)]
    assert not torch.allclose(*labels, atol=1e-3)


def test_mistake_7_a_list_option_split_into_characters() -> None:
    """7. '`type=list` on the command line splits strings into characters': a list is a list, a text a text."""
    values = {"data": {"source": "x.csv"}, "targets": {"label": {"column": "label"}}}
    tokens = (
        "--model.image_size",
        "[128, 96]",
        "--targets.label.labels",
        '["cat", "dog"]',
        "--data.source",
        "cat.csv",
    )
    config = make_config(values, parse_overrides(tokens))
    assert config.model.image_size == (128, 96)
    assert config.targets["label"].labels == ("cat", "dog")
    assert config.data.source == "cat.csv"
    with pytest.raises(ConfigError, match=r"targets\.label\.labels: found 'cat'"):
        make_config(values, parse_overrides(("--targets.label.labels", "cat")))
    assert list("cat") == ["c", "a", "t"]  # the mistake


LOSSES: dict[str, dict[str, Any]] = {
    "cross_entropy": {"label_smoothing": 0.1, "class_weights": "inverse"},
    "focal": {"class_weights": "effective"},
    "balanced_softmax": {},
    "logit_adjustment": {"tau": 0.5},
    "ldam": {"scale": 1.0, "class_weights": "inverse"},
    "gce": {},
    "soft_f1": {},
    "sum": {"terms": [{"name": "focal"}, {"name": "soft_f1", "weight": 0.5}]},
}


@pytest.mark.parametrize("name", LOSSES)
def test_mistake_8_losses_for_three_classes(name: str) -> None:
    """8. 'losses that default to 3 classes in an 18-class task': every loss is as wide as its target."""
    labels_N = np.arange(36) % 18
    target = ClassTarget("joint class", "class", "x", tuple(f"class {k}" for k in range(18)))
    split = Split(samples=None, labels={target.name: labels_N})  # type: ignore[arg-type]
    splits = DatasetSplits((target,), (), split, split, (), ())
    config = make_config(
        {
            "data": {"source": "x.csv"},
            "targets": {target.name: {"column": "x"}},
            "loss": {"name": name, **LOSSES[name]},
        }
    )
    criterion = build_criterion(config, splits)
    logits_BK = torch.randn(36, 18, generator=torch.Generator().manual_seed(0), requires_grad=True)
    criterion({target.name: logits_BK}, {target.name: torch.from_numpy(labels_N)}).backward()
    assert logits_BK.grad is not None
    assert (logits_BK.grad.abs().amax(dim=0) > 1e-6).all()
    for k in range(18):  # pushing a row's own logit up lowers the loss, for the last class as for the first
        assert logits_BK.grad[k, k] < 0


def test_mistake_8_a_loss_of_another_width_is_refused() -> None:
    """8. again: a loss made for three classes does not silently take eighteen."""
    with pytest.raises(ValueError, match="18"):
        SoftMacroF1(3)(torch.zeros(4, 18), torch.arange(4))


def test_mistake_9_best_by_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9. 'best checkpoint by accuracy although F1 ranks': unless told otherwise, macro F1 chooses."""
    plain_table(tmp_path)
    scores = [{"accuracy": 0.9, "macro_f1": 0.3}, {"accuracy": 0.8, "macro_f1": 0.6}]
    by_f1, by_accuracy = build(tmp_path), build(tmp_path, selection__metric="accuracy")
    assert by_f1.settings.metric == "macro_f1"
    scripted(monkeypatch, [*scores, *scores])
    kept = Kept()
    assert by_f1.train(kept) == "finished"
    assert kept == [True, True]
    assert (by_f1.state.progress.best, by_f1.state.progress.best_epoch) == (0.6, 2)

    by_accuracy.train(Kept())  # the mistake keeps the other epoch
    assert by_accuracy.state.progress.best_epoch == 1


def test_mistake_9_no_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9. 'no resume': the best score survives a restart, so a worse epoch after it does not replace the best."""
    plain_table(tmp_path)
    before, after = build(tmp_path, training__epochs=1), build(tmp_path, training__epochs=2)
    scripted(monkeypatch, [{"macro_f1": 0.6}, {"macro_f1": 0.5}])
    before.train(RunCheckpointer(tmp_path / "checkpoints", {}, {}))
    checkpoint = newest_checkpoint(tmp_path / "checkpoints", pytest.fail)
    restore(after.state, checkpoint)
    assert after.state.progress.epoch == 1
    kept = Kept()
    after.train(kept)
    assert kept == [False]
    assert (after.state.progress.best, after.state.progress.best_epoch) == (0.6, 1)


def test_mistake_10_steps_out_of_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10. 'the lecture's accumulation slide steps after the first micro-batch and can leave the last window
    unstepped': a step after each whole window and after the short last one, and after nothing else."""
    plain_table(tmp_path, 14)
    parts = build(tmp_path, training__batch_size=2, training__accumulate=2, data__valid=0.28)
    assert len(parts.data.ids) == 10
    events = ""

    def note(event: str) -> None:
        nonlocal events
        events += event

    model, optimizer = parts.state.model, parts.state.optimizer
    model.register_forward_hook(lambda *_: note("f"))
    for parameter in list(model.parameters())[-1:]:
        parameter.register_post_accumulate_grad_hook(lambda _: note("b"))
    optimizer.register_step_post_hook(lambda *_: note("s"))
    zero_grad = optimizer.zero_grad
    monkeypatch.setattr(optimizer, "zero_grad", lambda: (note("z"), zero_grad()))
    loop.train_one_epoch(parts.state, parts.data.updates(0), parts.data, parts.settings)
    assert events == "zfbfbs" + "zfbfbs" + "zfbs"
    assert parts.state.progress.update == parts.data.updates_per_epoch == 3

    # The mistake, `if i % accumulate == 0: step()`: a first step after one micro-batch, and with six of them
    # the last one's gradient is never used.
    assert slide(5) == "bs" + "bbs" + "bbs"
    assert slide(6) == "bs" + "bbs" + "bbs" + "b"


def slide(micro_batches: int, accumulate: int = 2) -> str:
    """What the lecture's slide does with so many micro-batches."""
    return "".join("bs" if i % accumulate == 0 else "b" for i in range(micro_batches))


def test_mistake_11_f1_averaged_over_batches() -> None:
    """11. 'F1 averaged over batches': the scores come from counts over the whole set, whatever the batches are."""
    rng = np.random.default_rng(0)
    labels_N = rng.choice(18, size=640, p=np.arange(18, 0, -1) / 171)
    logits_NK = rng.normal(size=(640, 18)) + 2 * np.eye(18)[labels_N]
    wanted = f1_score(labels_N, logits_NK.argmax(1), labels=range(18), average="macro", zero_division=0)
    board = MetricCollection({"face": ClassHead(18)}, {"face": [str(k) for k in range(18)]})
    means = []
    for batch_size in (32, 7, 640):
        board.reset()
        starts = range(0, 640, batch_size)
        for start in starts:
            part = slice(start, start + batch_size)
            board.update(
                {"face": torch.from_numpy(logits_NK[part])}, {"face": torch.from_numpy(labels_N[part])}
            )
        scores = board.compute()["targets"]["face"]
        assert scores["macro_f1"] == pytest.approx(wanted, abs=1e-12)
        batches = [(labels_N[s : s + batch_size], logits_NK[s : s + batch_size].argmax(1)) for s in starts]
        means.append(np.mean([f1_score(*batch, average="macro", zero_division=0) for batch in batches]))
    assert abs(means[0] - wanted) > 0.01  # the mistake
    assert abs(means[1] - wanted) > 0.01
    assert means[2] == pytest.approx(wanted, abs=1e-12)


def test_mistake_12_best_starts_at_infinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12. 'best F1 initialized to +inf, so nothing was ever saved': the first epoch is the best so far, even
    with a score of 0."""
    plain_table(tmp_path)
    parts = build(tmp_path)
    scripted(monkeypatch, [{"macro_f1": 0.0}, {"macro_f1": 0.0}])
    kept = Kept()
    parts.train(kept)
    assert kept == [True, False]
    assert not Progress(best=math.inf).end_epoch(0.99, {})  # the mistake


def test_mistake_12_a_run_always_ends_with_a_best_checkpoint(tmp_path: Path) -> None:
    """12. again, for a whole run that learns nothing: a learning rate next to nothing, one epoch."""
    plain_table(tmp_path)
    config = write_config(tmp_path, optimizer={"lr": 1e-12}, training__epochs=1)
    command("train", config, "--run", tmp_path / "run").ok()
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "best").epoch == 1
