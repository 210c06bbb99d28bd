"""The gradient of a single update, as classwise, Lightning and the loss of one big batch have it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from classwise.data.batch import Batch
from classwise.run.assembly import Parts
from classwise.training import loop
from twin.runs import WEIGHTED, bundled, config_of, new_parts, options_of, quiet_trainer, write_rows


@dataclass(frozen=True)
class Case:
    """An epoch of a single update: rows in micro-batches of 32, up to four of them; some rows may have no label."""

    rows: int
    weighted: bool = False
    unlabeled: int = 0

    @property
    def text(self) -> str:
        sizes = ", ".join(str(min(32, self.rows - start)) for start in range(0, self.rows, 32))
        weights = "class weights" if self.weighted else ""
        missing = f"two targets, {self.unlabeled} rows with only one" if self.unlabeled else ""
        return "; ".join(filter(None, (f"micro-batches of {sizes}", weights, missing)))


CASES = (
    Case(128),
    Case(80),
    Case(128, weighted=True),
    Case(80, weighted=True),
    Case(128, unlabeled=64),
)


def options_for(case: Case, folder: Path) -> dict[str, str]:
    """by-hand.toml with one epoch over the rows of the case."""
    bundled(folder)
    options = options_of(folder, **(WEIGHTED if case.weighted else {}))
    options["data.source"] = str(write_rows(folder, "train", case.rows, case.unlabeled))
    if case.unlabeled:  # a row has at least one label: there is a second target
        options |= {"targets.shoe.column": "shoe", "selection.metric": "mean"}
        options["data.valid"] = str(write_rows(folder, "test", 100))
    return options | {"training.epochs": "1"}


def recorded(optimizer: Optimizer) -> list[Tensor]:
    """A list that will hold the gradient of each step, as one vector: as it is after the step, since in Lightning the
    last backward pass is part of it."""
    found: list[Tensor] = []

    def record(stepping: Optimizer, *_: object) -> None:
        parameters = [p for group in stepping.param_groups for p in group["params"]]
        found.append(torch.cat([p.grad.detach().flatten().clone() for p in parameters if p.grad is not None]))

    optimizer.register_step_post_hook(record)
    return found


def of_classwise(options: Mapping[str, str]) -> Tensor:
    """The gradient of the epoch's only update."""
    with new_parts(options) as parts:
        found = recorded(parts.state.optimizer)
        loop.train_one_epoch(parts.state, parts.data.updates(0), parts.data, parts.settings)
    return _only(found)


def of_lightning(options: Mapping[str, str], exact: bool) -> Tensor:
    """The same in Lightning; `exact` as in LitClassifier."""
    from classwise.integrations.lightning import from_config

    module, data = from_config(config_of(options), exact=exact)
    found = recorded(module.parts.state.optimizer)
    quiet_trainer(**module.trainer_options()).fit(module, data)
    return _only(found)


def of_one_batch(options: Mapping[str, str]) -> Tensor:
    """The gradient of the loss of all rows at once."""
    with new_parts(options | {"training.batch_size": "128", "training.accumulate": "1"}) as parts:
        (batches,) = parts.data.updates(0)
        (batch,) = batches
        return _gradient(parts, batch)


def gradients_of_micro_batches(options: Mapping[str, str]) -> tuple[list[Tensor], Tensor]:
    """The gradient of each micro-batch's own mean loss, and their mean by rows."""
    with new_parts(options) as parts:
        (batches,) = parts.data.updates(0)
        own = [_gradient(parts, batch) for batch in batches]
    rows = torch.tensor([float(len(batch)) for batch in batches])
    return own, rows @ torch.stack(own) / rows.sum()


def _gradient(parts: Parts, batch: Batch) -> Tensor:
    state = parts.state
    state.model.train()
    state.optimizer.zero_grad()
    state.criterion(state.model(batch.images), batch.targets).backward()
    return torch.cat([p.grad.flatten().clone() for p in state.parameters if p.grad is not None])


def _only(found: list[Tensor]) -> Tensor:
    (gradient,) = found
    return gradient


def relative_difference(found: Tensor, reference: Tensor) -> float:
    """The norm of the difference, as a share of the reference's."""
    return float((found - reference).double().norm() / reference.double().norm())


def update_table(folder: Path) -> list[str]:
    """Markdown: how far each gradient is from that of one big batch."""
    lines = [
        "| one update | classwise | Lightning, `from_config(...)` | Lightning, `exact=False` | norm of its gradient |",
        "|---|---|---|---|---|",
    ]
    for case in CASES:
        options = options_for(case, folder)
        reference = of_one_batch(options)
        plain = of_lightning(options, exact=False)
        gradients = (of_classwise(options), of_lightning(options, exact=True), plain)
        cells = [share_text(relative_difference(gradient, reference)) for gradient in gradients]
        norm = float(plain.norm() / reference.norm())
        lines.append(f"| {case.text} | {' | '.join(cells)} | x {norm:.2f} |")
    return lines


def share_text(share: float) -> str:
    """A share in percent; what rounding makes of a sum is below a thousandth of one."""
    return "rounding" if share < 1e-5 else f"{100 * share:.1f} %"
