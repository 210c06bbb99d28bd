"""A run in PyTorch Lightning: the model, losses, metrics, data and schedule of a config, trained by its Trainer.

    import pytorch_lightning as pl
    from classwise.integrations.lightning import from_config

    module, data = from_config("classwise.toml")
    trainer = pl.Trainer(**module.trainer_options())
    trainer.fit(module, data)

Nothing is implemented twice: both hand the objects that `classwise train` works with to Lightning's hooks, so that its
loop ends with the same weights, to the bit where its arithmetic is the same. docs/results/lightning.md has the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from classwise.compose.autotune import resolve_auto
from classwise.compose.dataset import prepare
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch
from classwise.data.memory import memory_of
from classwise.distributed import SINGLE_PROCESS
from classwise.errors import ConfigError, ModelError
from classwise.losses.normalizer import Normalizer
from classwise.run.api import checked_config
from classwise.run.assembly import Parts, assemble, new_model
from classwise.run.predictor import set_threads
from classwise.training.loop import seed_dropout
from classwise.training.update import update_normalizer
from classwise.training.validation import ValidationResults

try:
    import pytorch_lightning as pl
except ImportError as error:
    raise ModelError(
        f"classwise.integrations.lightning: the package pytorch-lightning cannot be imported ({error});"
        ' pip install "classwise[lightning]"'
    ) from error


class MicroBatch(NamedTuple):
    """What `training_step` gets: a batch on the device, its index within its update, and of the whole update the number
    of samples and what the summed loss is divided by."""

    batch: Batch
    micro_batch_idx: int
    samples: int
    normalizer: Normalizer


def from_config(
    config: Config | str | Path,
    overrides: Sequence[tuple[str, str]] = (),
    exact: bool = True,
    quiet: bool = True,
) -> tuple["LitClassifier", "LitData"]:
    """Module and data of the run that `classwise train` would make of this config, at update 0.

    Every `auto` is replaced as `train` does it, so measuring may take seconds, and torch gets the number of threads of
    the config. `exact`: see `LitClassifier`. Raises what `train` raises for a bad config or bad data; ConfigError for
    what Lightning's loop cannot do.
    """
    console = Console(quiet)
    given, warnings = checked_config(config, overrides)
    _refuse_unsupported(given)
    splits = prepare(given, console)
    made = new_model(given, splits, SINGLE_PROCESS)
    for line in (*(f"warning: {text}" for text in (*warnings, *splits.warnings)), *made.notes):
        console.line(line)
    resolved, device, _ = resolve_auto(given, splits, made.model, console, memory=memory_of(given.data.cache))
    set_threads(resolved)
    parts = assemble(resolved, splits, made.model, heads=made.heads, device=device)
    return LitClassifier(parts, exact), LitData(parts, splits.close)


def _refuse_unsupported(config: Config) -> None:
    """Raise ConfigError for keys that Lightning's loop would have to ignore."""
    if config.plan != "finetune":
        raise ConfigError(
            f"training.plan: found {config.training.plan!r}, which here begins with heads fitted to"
            " features; allowed in Lightning: finetune, in the config or as"
            ' from_config(..., [("training.plan", "finetune")])'
        )
    if config.training.precision == "fp16":
        raise ConfigError(
            "training.precision: found 'fp16', whose loss scale belongs to classwise's loop; allowed in Lightning:"
            " auto, fp32, bf16"
        )
    if config.inference.tta != "none":
        raise ConfigError(
            f"inference.tta: found {config.inference.tta!r}, which classwise's predictions have and Lightning's do not;"
            " allowed in Lightning: none"
        )


class LitClassifier(pl.LightningModule):  # type: ignore[misc] # its types are not needed to check ours
    """The parts of a run as a LightningModule with automatic optimization. Logs `train_loss`, `lr` and every score of
    the validation rows as `valid_NAME`, with the names of history.jsonl (`valid_macro_f1`, `valid_loss`, ...).

    Lightning divides each micro-batch's loss by `accumulate_grad_batches`, however many micro-batches an update has and
    whatever they weigh. With `exact` the loss is the micro-batch's part of the update's loss times that number, so that
    the gradient is that of one large batch; without, it is the micro-batch's own mean, as Lightning's users write it.
    """

    def __init__(self, parts: Parts, exact: bool = True) -> None:
        super().__init__()
        self.parts = parts
        self.exact = exact
        self.model = parts.state.model
        self.criterion = parts.state.criterion
        self._losses: list[
            tuple[Tensor, int]
        ] = []  # each micro-batch's share of its update's loss; rows of updates
        self._results: ValidationResults | None = None

    @property
    def monitor(self) -> dict[str, str]:
        """What selects the best epoch, as arguments for ModelCheckpoint and EarlyStopping: `monitor` and `mode`."""
        settings = self.parts.settings
        return {"monitor": f"valid_{settings.metric}", "mode": "max" if settings.higher_is_better else "min"}

    def trainer_options(self) -> dict[str, Any]:
        """Arguments for Trainer that the config decides. Its precision stays 32-true, since the forward pass is
        computed in that of the config anyway."""
        settings = self.parts.settings
        on_gpu = settings.device.type == "cuda"
        return {
            "max_epochs": settings.epochs,
            "accumulate_grad_batches": self.parts.data.micro_batches_per_update,
            "gradient_clip_val": None if settings.clip_norm == float("inf") else settings.clip_norm,
            "accelerator": "gpu" if on_gpu else "cpu",
            "devices": [settings.device.index or 0] if on_gpu else 1,
            "num_sanity_val_steps": 0,
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The raw outputs (B, outputs) by target of images (B, C, H, W) uint8."""
        outputs: dict[str, Tensor] = self.model(images)
        return outputs

    def configure_optimizers(self) -> Optimizer:
        """The optimizer of the config."""
        return self.parts.state.optimizer

    def on_train_epoch_start(self) -> None:
        """Losses may change with the epoch."""
        self.criterion.set_epoch(self.current_epoch)
        self._losses.clear()

    def training_step(self, item: MicroBatch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch, a scalar."""
        settings, state = self.parts.settings, self.parts.state
        seed_dropout(settings, self.global_step, item.micro_batch_idx, 0)
        outputs = settings.in_precision(state.forward)(item.batch.images)

        # Lightning divides what is returned by the number of micro-batches of a full update.
        accumulate = self.trainer.accumulate_grad_batches
        targets = item.batch.targets
        if self.exact:
            loss: Tensor = self.criterion(outputs, targets, item.normalizer) * accumulate
        else:
            loss = self.criterion(outputs, targets, self.criterion.normalizer(targets, item.batch.complete))
        self._losses.append((loss.detach() / accumulate, item.samples))
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """One update at the learning rate of the schedule; afterwards the average of the weights follows."""
        state = self.parts.state
        self.log("lr", state.schedule.set(state.optimizer, self.global_step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        state.average.update(self.model)

    def on_train_epoch_end(self) -> None:
        """The mean of the updates' losses, by rows, as in history.jsonl."""
        parts, samples = zip(*self._losses, strict=True)
        total = torch.stack(parts).double().cpu() @ torch.tensor(samples, dtype=torch.float64)
        self.log("train_loss", total / len(self.parts.data.ids))

    def on_validation_epoch_start(self) -> None:
        """Counting begins again from zero."""
        parts = self.parts
        self._results = ValidationResults(
            self.criterion, parts.valid, parts.metrics, parts.settings.device, SINGLE_PROCESS
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Hand the outputs of one batch to the metrics: of the averaged weights, where there are."""
        outputs = self.parts.settings.in_precision(self.parts.state.average.model)(batch.images)
        assert self._results is not None
        self._results.update(batch, outputs, [torch.from_numpy(batch.rows)])

    def on_validation_epoch_end(self) -> None:
        """Scores over all validation rows at once; `plateau` follows them."""
        assert self._results is not None
        scores = self._results.compute()
        self.log_dict({f"valid_{name}": value for name, value in scores.items()})
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.parts.state.schedule.end_epoch(scores[self.parts.settings.metric], self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What Lightning does not know of: the average of the weights, and what `plateau` has seen."""
        state = self.parts.state
        checkpoint["classwise"] = {
            "average": state.average.state_dict(),
            "schedule": state.schedule.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint of a module of the same config."""
        saved, state = checkpoint["classwise"], self.parts.state
        state.average.load_state_dict(saved["average"])
        state.schedule.load_state_dict(saved["schedule"])


class LitData(pl.LightningDataModule):  # type: ignore[misc] # as above
    """The rows of a run as a LightningDataModule: the same batches in the same order as `classwise train`, from its
    loaders and image cache. For one process: Lightning's averaging of gradients over several would not be exact."""

    def __init__(self, parts: Parts, close: Callable[[], None]) -> None:
        super().__init__()
        self.parts = parts
        self._close = close

    def setup(self, stage: str) -> None:
        """Raises ConfigError for a Trainer with several processes."""
        if self.trainer.world_size > 1:
            raise ConfigError(
                f"Trainer(devices=...): found {self.trainer.world_size} processes; allowed with classwise's data: 1, or"
                " several without Lightning: torchrun --standalone --nproc-per-node N -- -m classwise train CONFIG"
            )

    def train_dataloader(self) -> "_TrainBatches":
        """The micro-batches of an epoch in order."""
        return _TrainBatches(self)

    def val_dataloader(self) -> "_ValidBatches":
        """All validation rows, each once."""
        return _ValidBatches(self)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Training batches are there already: they are mixed (mixup, CutMix) on the device."""
        return batch.to(device) if isinstance(batch, Batch) else batch

    def teardown(self, stage: str) -> None:
        """End the loader workers; another pass would start new ones."""
        self.parts.data.loader.close()
        self.parts.valid.loader.close()
        self._close()


class _TrainBatches:
    """What Lightning iterates over in every training epoch."""

    def __init__(self, data: LitData) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.parts.data.batches_per_epoch

    def __iter__(self) -> Iterator[MicroBatch]:
        parts, epoch = self._data.parts, self._data.trainer.current_epoch
        data, criterion = parts.data, parts.state.criterion
        for idx, micro_batches in enumerate(data.updates(epoch)):
            update = epoch * data.updates_per_epoch + idx
            batches = data.mixing([batch.to(parts.settings.device) for batch in micro_batches], update)
            normalizer = update_normalizer(criterion, batches, 0, SINGLE_PROCESS)
            samples = sum(map(len, batches))
            for micro_batch_idx, batch in enumerate(batches):
                yield MicroBatch(batch, micro_batch_idx, samples, normalizer)


class _ValidBatches:
    """What Lightning iterates over in every validation."""

    def __init__(self, data: LitData) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.parts.valid.batches_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        return self._data.parts.valid.batches(self._data.trainer.current_epoch)
