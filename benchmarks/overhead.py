"""What does the training loop cost beyond the model, on steps that take next to no time?

    python benchmarks/overhead.py [--steps 200] [--blocks 9] [--only NAME ...] [--json FILE]

An epoch is so many updates of a tiny model with three heads (batches of 64 that stand in memory, AdamW), and a fifth as
many batches of validation with macro F1 of every head; the training loss is logged. Bare is a loop by hand without
logging and metrics. Everybody gets the same batches, model, loss and optimizer (torch's fused AdamW; classwise its own,
which runs the same kernel: `bare, our AdamW` is the loop by hand with that one), in one process, in alternating blocks,
each beside a bare block; that all end with the weights of the loop by hand is checked. The figures are extra
microseconds an update, medians of the paired differences, and `bare (again)` shows what the noise makes of it. Each
peer is written as its own tutorial says, but for its loader: all are handed the batches as they are. timm has no
trainer that can be imported: its script's loop is a loop by hand.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.data.batch import Batch
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.metrics.collection import MetricCollection
from classwise.model.average import NoAverage
from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.model.heads import ClassHead
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import build_schedule
from classwise.training import loop
from classwise.training.state import Progress, TrainState

HEADS = {"mask": 3, "gender": 2, "age": 3}
ROWS = 64
CPU = torch.device("cpu")


class Data:
    """Batches in memory, for training and for validation, as classwise's loop and as pairs for everybody else."""

    def __init__(self, steps: int) -> None:
        draw = torch.Generator().manual_seed(1)

        def drawn(count: int) -> list[Batch]:
            return [
                Batch(
                    torch.randint(0, 256, (ROWS, 3, 6, 6), dtype=torch.uint8, generator=draw),
                    {name: torch.randint(0, k, (ROWS,), generator=draw) for name, k in HEADS.items()},
                    np.arange(i * ROWS, (i + 1) * ROWS),
                    complete=True,
                )
                for i in range(count)
            ]

        self.steps = self.updates_per_epoch = steps
        self.train, self.valid_batches = drawn(steps), drawn(max(1, steps // 5))
        self.pairs = [(batch.images, batch.targets) for batch in self.train]
        self.valid_pairs = [(batch.images, batch.targets) for batch in self.valid_batches]
        self.first_micro_batch_idx = self.frozen_epochs = 0

    # What the loop asks of its data.

    def __len__(self) -> int:
        """Validation rows."""
        return sum(map(len, self.valid_batches))

    def updates(self, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        return ([batch] for batch in self.train)

    def mixing(self, window: list[Batch], update: int) -> list[Batch]:
        return window

    def rounds(self, epoch: int) -> Iterator[tuple[Batch, list[Tensor]]]:
        return ((batch, [torch.from_numpy(batch.rows)]) for batch in self.valid_batches)

    def targets(self, device: torch.device) -> dict[str, Tensor]:
        return {name: torch.cat([batch.targets[name] for batch in self.valid_batches]) for name in HEADS}


def new_model() -> Classifier:
    """The same weights for everybody."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(108, 64), nn.ReLU())
        facts = ModelMetadata("none", (6, 6), "squash", HALF, HALF, 0.0, HEADS)
        return Classifier(Backbone(body, 64, HALF, HALF), facts)


def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """torch's own, which everybody has but classwise."""
    return torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2, fused=True)


def our_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The same as classwise builds it: the same kernel, found in less time."""
    return build_optimizer("adamw", [{"params": list(model.parameters())}], 1e-3, 1e-2)


def loss_of(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """The sum of three cross entropies."""
    mask, gender, age = (F.cross_entropy(outputs[name], targets[name]) for name in HEADS)
    return mask + gender + age


Epoch = Callable[[], float]
"""Trains one epoch, and returns its seconds."""


def bare(data: Data, optimizer_of: Callable[[nn.Module], torch.optim.Optimizer] = new_optimizer) -> Epoch:
    """By hand: no metric, no log, no check."""
    model = new_model()
    optimizer = optimizer_of(model)

    def epoch() -> float:
        started = time.perf_counter()
        model.train()
        for images, targets in data.pairs:
            optimizer.zero_grad()
            loss = loss_of(model(images), targets)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for images, _ in data.valid_pairs:
                model(images)
        return time.perf_counter() - started

    epoch.model = model  # type: ignore[attr-defined]
    return epoch


def bare_with_ours(data: Data) -> Epoch:
    """By hand with classwise's optimizer: what of the loop's time is not that of the step."""
    return bare(data, our_optimizer)


def classwise(data: Data) -> Epoch:
    """The loop that `classwise train` runs: exact windows, schedule, finite gradients, all scores of all heads."""
    model = new_model()
    optimizer = our_optimizer(model)
    schedule = build_schedule("constant", [1e-3], data.steps, 10**6, 0.0)
    criterion = Criterion({name: CrossEntropy() for name in HEADS}, dict.fromkeys(HEADS, 1.0))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, criterion, optimizer, schedule, scaler, NoAverage(model), Progress())
    labels = {name: [str(k) for k in range(count)] for name, count in HEADS.items()}
    board = MetricCollection({name: ClassHead(count) for name, count in HEADS.items()}, labels)
    settings = loop.Settings(0, 10**6, "mask.macro_f1", True, 1, None, math.inf, "fp32", CPU)

    def epoch() -> float:
        started = time.perf_counter()
        loop.train_one_epoch(state, data.updates(0), data, settings)  # type: ignore[arg-type]
        scores = loop.evaluate(state, data, board, settings)  # type: ignore[arg-type]
        assert scores is not None
        row = {"loss": state.progress.loss_sum / state.progress.samples, "f1": scores["mask.macro_f1"]}
        state.progress.end_epoch(scores["mask.macro_f1"], row)
        return time.perf_counter() - started

    epoch.model = model  # type: ignore[attr-defined]
    return epoch


def f1_metrics() -> dict[str, Any]:
    """torchmetrics' macro F1 of each head."""
    from torchmetrics.classification import MulticlassF1Score

    return {name: MulticlassF1Score(count, average="macro") for name, count in HEADS.items()}


def lightning(data: Data) -> Epoch:
    """pytorch-lightning with torchmetrics, its CSV logger, and no progress bar."""
    import pytorch_lightning as L
    from pytorch_lightning.loggers import CSVLogger

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    class Module(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.metrics = new_model(), nn.ModuleDict(f1_metrics())

        def training_step(self, batch: Any, index: int) -> Tensor:
            images, targets = batch
            loss = loss_of(self.model(images), targets)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            images, targets = batch
            outputs = self.model(images)
            for name, metric in self.metrics.items():
                metric.update(outputs[name], targets[name])
                self.log(f"f1_{name}", metric)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return new_optimizer(self)

    times: list[float] = []

    class Clock(L.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, *_: Any) -> None:
            times.append(time.perf_counter())

        def on_train_end(self, *_: Any) -> None:
            times.append(time.perf_counter())

    module = Module()
    loaders = InMemory(data.pairs), InMemory(data.valid_pairs)

    def epoch() -> float:
        times.clear()
        with tempfile.TemporaryDirectory() as folder:
            trainer = L.Trainer(
                max_epochs=2,
                logger=CSVLogger(folder),
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                accelerator="cpu",
                callbacks=[Clock()],
            )
            trainer.fit(module, *loaders)
        return times[2] - times[1]  # the second epoch: setting up is not the loop's

    epoch.model, epoch.epochs = module.model, 2  # type: ignore[attr-defined]
    return epoch


class InMemory:
    """Batches that are handed over as they are, to peers that want a loader."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def hf_trainer(data: Data) -> Epoch:
    """transformers.Trainer, logging every 50 updates, evaluating every epoch with scikit-learn's macro F1."""
    import transformers
    from sklearn.metrics import f1_score

    transformers.logging.set_verbosity_error()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
            outputs = self.model(images)
            targets = dict(zip(HEADS, labels.unbind(1), strict=True))
            return {"loss": loss_of(outputs, targets), "logits": tuple(outputs.values())}

    def as_dicts(pairs: Any) -> Any:
        return InMemory(
            [{"images": images, "labels": torch.stack(list(t.values()), 1)} for images, t in pairs]
        )

    loaders = as_dicts(data.pairs), as_dicts(data.valid_pairs)

    class Trainer(transformers.Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return loaders[0]

        def get_eval_dataloader(self, *_: Any) -> Any:
            return loaders[1]

    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    def scores(found: Any) -> dict[str, float]:
        return {
            f"f1_{name}": f1_score(found.label_ids[:, i], found.predictions[i].argmax(1), average="macro")
            for i, name in enumerate(HEADS)
        }

    model = Model()

    def epoch() -> float:
        times.clear()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
            arguments = transformers.TrainingArguments(
                folder,
                num_train_epochs=2,
                logging_steps=50,
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                per_device_train_batch_size=ROWS,
                per_device_eval_batch_size=ROWS,
                max_grad_norm=0,
                lr_scheduler_type="constant",
                label_names=["labels"],
            )
            trainer = Trainer(
                model,
                arguments,
                train_dataset=data.pairs,
                eval_dataset=data.valid_pairs,
                compute_metrics=scores,
                callbacks=[Clock()],
                optimizers=(new_optimizer(model), None),
            )
            trainer.train()
        return times[2] - times[1]

    epoch.model, epoch.epochs = model.model, 2  # type: ignore[attr-defined]
    return epoch


def ignite(data: Data) -> Epoch:
    """pytorch-ignite: engines, a running average of the loss, Fbeta of each head."""
    from ignite.engine import Engine
    from ignite.metrics import Fbeta, RunningAverage

    model = new_model()
    optimizer = new_optimizer(model)

    def update(engine: Any, batch: Any) -> float:
        images, targets = batch
        model.train()
        optimizer.zero_grad()
        loss = loss_of(model(images), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    def look(engine: Any, batch: Any) -> Any:
        images, targets = batch
        model.eval()
        with torch.no_grad():
            return model(images), targets

    trainer, evaluator = Engine(update), Engine(look)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    for name in HEADS:
        metric = Fbeta(
            1.0, average=True, output_transform=lambda both, name=name: (both[0][name], both[1][name])
        )
        metric.attach(evaluator, f"f1_{name}")

    def epoch() -> float:
        started = time.perf_counter()
        trainer.run(data.pairs, max_epochs=1)
        evaluator.run(data.valid_pairs)
        return time.perf_counter() - started

    epoch.model = model  # type: ignore[attr-defined]
    return epoch


def accelerate(data: Data) -> Epoch:
    """accelerate's loop with torchmetrics; the loss is gathered for the log every 50 updates."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = new_model()
    loaders = InMemory(data.pairs), InMemory(data.valid_pairs)
    model, optimizer, train, valid = accelerator.prepare(model, new_optimizer(model), *loaders)
    metrics = f1_metrics()

    def epoch() -> float:
        started = time.perf_counter()
        model.train()
        for step, (images, targets) in enumerate(train):
            optimizer.zero_grad()
            loss = loss_of(model(images), targets)
            accelerator.backward(loss)
            optimizer.step()
            if step % 50 == 0:
                accelerator.gather(loss.detach()).mean().item()
        model.eval()
        for images, targets in valid:
            with torch.no_grad():
                outputs = model(images)
            for name, metric in metrics.items():
                metric.update(*accelerator.gather_for_metrics((outputs[name], targets[name])))
        for metric in metrics.values():
            metric.compute()
            metric.reset()
        return time.perf_counter() - started

    epoch.model = model  # type: ignore[attr-defined]
    return epoch


def skorch(data: Data) -> Epoch:
    """skorch's NeuralNet with its default callbacks but the printed table, and epoch scoring of each head."""
    from sklearn.metrics import f1_score
    from skorch import NeuralNet
    from skorch.callbacks import EpochScoring

    class Batches:
        """In place of its DataLoader: the batches as they are, with the three answers side by side."""

        def __init__(self, dataset: Any, **_: Any) -> None:
            self.pairs = dataset.pairs

        def __iter__(self) -> Any:
            return iter(self.pairs)

        def __len__(self) -> int:
            return len(self.pairs)

    class Whole:
        def __init__(self, pairs: Any) -> None:
            self.pairs = [(images, torch.stack(list(t.values()), 1)) for images, t in pairs]
            self.y = torch.cat([labels for _, labels in self.pairs]).numpy()

        def __len__(self) -> int:
            return len(self.pairs)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def forward(self, images: Tensor) -> Any:
            return tuple(self.model(images).values())

    class Loss(nn.Module):
        def forward(self, outputs: Any, labels: Tensor) -> Tensor:
            return loss_of(
                dict(zip(HEADS, outputs, strict=True)), dict(zip(HEADS, labels.unbind(1), strict=True))
            )

    def score(i: int) -> Any:
        def scoring(net: Any, dataset: Any, y: Any) -> float:
            outputs = torch.cat([found[i] for found in net.forward_iter(dataset)])
            return float(f1_score(dataset.y[:, i], outputs.argmax(1).numpy(), average="macro"))

        return EpochScoring(scoring, lower_is_better=False, name=f"f1_{i}", use_caching=True)

    net = NeuralNet(
        Model,
        Loss,
        optimizer=torch.optim.AdamW,
        optimizer__fused=True,
        lr=1e-3,
        iterator_train=Batches,
        iterator_valid=Batches,
        max_epochs=1,
        train_split=lambda dataset, y=None: (Whole(data.pairs), Whole(data.valid_pairs)),
        callbacks=[score(i) for i in range(3)],
        callbacks__print_log=None,
        verbose=0,
    ).initialize()
    whole = Whole(data.pairs)

    def epoch() -> float:
        started = time.perf_counter()
        net.partial_fit(whole, None)
        return time.perf_counter() - started

    epoch.model = net.module_.model  # type: ignore[attr-defined]
    return epoch


def fastai(data: Data) -> Epoch:
    """fastai's Learner with its recorder, its metrics of each head, and no bar."""
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - adds no_bar to the Learner
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import AccumMetric
    from fastai.optimizer import OptimWrapper
    from sklearn.metrics import f1_score

    class Loader(list):  # type: ignore[type-arg]
        """What Learner asks of a loader."""

        bs, device = ROWS, CPU

        def to(self, device: Any) -> Any:
            return self

        def one_batch(self) -> Any:
            return self[0]

    def as_tuples(pairs: Any) -> Any:
        return Loader([(images, torch.stack(list(t.values()), 1)) for images, t in pairs])

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = new_model()

        def forward(self, images: Tensor) -> Tensor:
            return torch.cat(list(self.model(images).values()), 1)

    sizes = list(HEADS.values())

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        parts = torch.split(outputs, sizes, 1)
        return loss_of(dict(zip(HEADS, parts, strict=True)), dict(zip(HEADS, labels.unbind(1), strict=True)))

    def head(i: int) -> Any:
        return AccumMetric(
            lambda outputs, labels: f1_score(
                labels.view(-1, 3)[:, i].numpy(),
                torch.split(outputs.view(-1, sum(sizes)), sizes, 1)[i].argmax(1).numpy(),
                average="macro",
            ),
            flatten=False,
        )

    learner = Learner(
        DataLoaders(as_tuples(data.pairs), as_tuples(data.valid_pairs)),
        Model(),
        loss_func=loss,
        opt_func=lambda parameters, **_: OptimWrapper(parameters, torch.optim.AdamW, fused=True),
        lr=1e-3,
        metrics=[head(i) for i in range(3)],
    )

    def epoch() -> float:
        with learner.no_bar(), learner.no_logging():
            started = time.perf_counter()
            learner.fit(1)
            return time.perf_counter() - started

    epoch.model = learner.model.model  # type: ignore[attr-defined]
    return epoch


WAYS: dict[str, Callable[[Data], Epoch]] = {
    "bare (again)": bare,
    "bare, our AdamW": bare_with_ours,
    "classwise": classwise,
    "accelerate": accelerate,
    "ignite": ignite,
    "skorch": skorch,
    "fastai": fastai,
    "Lightning": lightning,
    "HF Trainer": hf_trainer,
}


def require_same(name: str, epoch: Any, data: Data) -> None:
    """AssertionError unless the first call has led to the weights of as many epochs by hand: the same work is done."""
    by_hand = bare(data)
    for _ in range(getattr(epoch, "epochs", 1)):
        by_hand()
    ours, theirs = (nn.utils.parameters_to_vector(one.model.parameters()) for one in (by_hand, epoch))  # type: ignore[attr-defined]
    far = float((theirs - ours).detach().abs().max())
    assert far < 1e-4, f"{name}: its weights are off by {far:.2g}"


def measure(steps: int, blocks: int, names: list[str]) -> dict[str, Any]:
    """Extra microseconds an update by way: the median and quartiles of paired differences to a bare epoch."""
    data = Data(steps)
    base = bare(data)
    epochs = {name: WAYS[name](data) for name in names}
    base()
    for name, epoch in epochs.items():
        epoch()
        require_same(name, epoch, data)
    extra: dict[str, list[float]] = {name: [] for name in names}
    steps_us: list[float] = []
    for block in range(blocks):
        for name in names[:: 1 if block % 2 else -1]:
            before, found, after = base(), epochs[name](), base()
            steps_us += [1e6 * before / steps, 1e6 * after / steps]
            extra[name].append(1e6 * (found - (before + after) / 2) / steps)
    return {
        "bare_us": statistics.median(steps_us),
        "extra_us": {name: sorted(f) for name, f in extra.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")  # the peers' own
    torch.set_num_threads(1)
    found = measure(arguments.steps, arguments.blocks, arguments.only)
    print(f"bare: {found['bare_us']:.0f} us an update, with its share of validation")
    extra = {name: statistics.median(times) for name, times in found["extra_us"].items()}
    for name, times in found["extra_us"].items():
        quarter = len(times) // 4
        ratio = f"  {extra[name] / extra['classwise']:5.1f} x classwise" if "classwise" in extra else ""
        print(
            f"{name:<15} {extra[name]:8.0f} us more  ({times[quarter]:.0f} to {times[-1 - quarter]:.0f}){ratio}"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
