"""What two or three processes find out about themselves: `torchrun --nproc-per-node 2 -m tests.faults.ranks OUT CHECKS`.

Each process computes what it would have come to alone, too, and compares. The first one writes what was counted.
"""

import dataclasses
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.data.batch import Batch, without_labels
from classwise.data.epochs import ValidationData
from classwise.data.sampling import rank_share
from classwise.distributed import SINGLE_PROCESS, Processes, process_group
from classwise.errors import NonFiniteError
from classwise.losses.normalizer import Normalizer
from classwise.metrics.collection import MetricCollection, flat_scores
from classwise.model.heads import (
    ClassHead,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)
from classwise.training import loop
from classwise.training.guard import NonFiniteGuard
from classwise.training.state import TrainState
from tests.faults.counting import Count
from tests.helpers.tiny_runs import (
    SETTINGS,
    MemoryLoader,
    Shelf,
    board,
    convolutional,
    criterion_of,
    dense,
    frozen,
    state_of,
    training,
    validation,
)
from tests.properties.test_accumulation import (
    LOSSES,
    OUTPUTS,
    Head,
    Heads,
    cut,
    drawn_criterion,
    drawn_queries,
    gradient,
    mean_of_means,
    rows_of,
)

EXACT = {torch.float64: 1e-12, torch.float32: 1e-6}


# Gradients


def window_gradients(processes: Processes, cases: int, sabotage: str = "") -> Count:
    """Every loss family, drawn windows, masks and learned weights; the sum over the processes against one process."""
    count = Count()
    names = [(kind, loss) for kind, losses in LOSSES.items() for loss in losses]
    for number in range(cases):
        rng = random.Random(number)
        chosen = rng.sample(names, rng.randint(1, 3))
        heads = {
            f"{i}": Head(kind, loss, rng.uniform(0.1, 5), rng.choice((0.0, 0.3, 0.9)), False)
            for i, (kind, loss) in enumerate(chosen)
        }
        sizes = [[rng.randint(1, 4) for _ in range(rng.randint(1, 2))] for _ in range(rng.randint(1, 7))]
        batch = rows_of(heads, drawn_queries(sizes, number), number)
        window = cut(batch, [sum(queries) for queries in sizes])
        outputs = {name: OUTPUTS[head.type] for name, head in heads.items()}
        criterion = drawn_criterion(heads, rng.random() < 0.5, rng.choice((0, 2)), number)
        alone = Heads(outputs, number)
        expected = gradient(criterion, window, alone)
        criterion.zero_grad()
        parts = rank_share(
            [np.array([i]) for i in range(len(window))], len(window), processes.rank, processes.world_size
        )
        own = [window[int(i[0])] for i in parts[0]]
        if not own:
            first = Batch(window[0][0], window[0][1], np.arange(len(window[0][0])))
            own = [(first.images, without_labels(first).targets)]
        model = Heads(outputs, number)
        if sabotage == "mean loss":
            mean_of_means(criterion, own, model)
            processes.sum_gradients(model.parameters())
            found = torch.cat([p.grad.flatten() for p in model.parameters()]) / processes.world_size  # type: ignore[union-attr]
        else:
            normalizer = Normalizer(
                processes.total(sum(criterion.normalizer(targets) for _, targets in own).values)
            )
            for images, targets in own:
                criterion(model(images), targets, normalizer).backward()
            processes.sum_gradients(model.parameters())
            found = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
        error = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
        shares = len(window) % processes.world_size == 0
        kind = (
            "even shards"
            if shares
            else "uneven shards"
            if len(window) >= processes.world_size
            else "an empty shard"
        )
        count.add(error <= EXACT[torch.float64], kind, f"case {number} {chosen}: off by {error:.2g}")
    return count


def loop_gradients(processes: Processes) -> Count:
    """The loop itself: the gradients before each step, over epochs with a short last window."""
    count = Count()
    makers: dict[str, Callable[[], Any]] = {
        "float64": dense,
        "float64 with batch norm frozen": frozen,
        "float32 with batch norm": convolutional,
    }
    for name, make in makers.items():
        for rows in (1, 2, 3, 5, 8, 11, 13, 16):
            for batch, accumulate in ((2, 1), (3, 2), (1, 2)):
                for learned in (False, True):
                    runs = [
                        _gradients(make(), rows, batch, accumulate, learned, who, processes.world_size)
                        for who in (processes, SINGLE_PROCESS)
                    ]
                    error = max(
                        float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
                        for a, b in zip(*runs, strict=True)
                    )
                    dtype = runs[0][0].dtype
                    left = -(-rows // batch) % (accumulate * processes.world_size)
                    share = "even" if not left else "uneven" if left > accumulate else "empty"
                    count.add(
                        len(runs[0]) == len(runs[1]) and error <= EXACT[dtype],
                        f"{name}, last window {share}",
                        f"{rows} rows, {batch} x {accumulate}: off by {error:.2g}",
                    )
    return count


def _gradients(
    model: Any, rows: int, batch: int, accumulate: int, learned: bool, who: Processes, world_size: int
) -> list[Tensor]:
    """The flat gradient of every update of an epoch, as `who` sees it."""
    data = dataclasses.replace(
        training(rows, batch, accumulate * world_size), rank=who.rank, world_size=who.world_size
    )
    criterion = criterion_of(uncertainty=learned).to(next(model.parameters()).dtype)
    state = state_of(model, data, "sgd", lr=1e-12, criterion=criterion)
    dtype = next(model.parameters()).dtype
    found: list[Tensor] = []
    state.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten().to(dtype) for p in state.parameters]))  # type: ignore[union-attr]
    )
    loop.train_one_epoch(state, data.updates(0), data, dataclasses.replace(SETTINGS, processes=who))
    return found


# Metrics


HEADS = {
    "class": ClassHead(3),
    "level": OrdinalHead(4),
    "tags": MultilabelHead(3),
    "size": RegressionHead(2.0, 3.0),
    "rank": RankingHead(),
}
SIZES = {"class": 3, "level": 3, "tags": 3, "size": 1, "rank": 1}
LABELS = {"class": list("abc"), "level": list("0123"), "tags": list("xyz")}


class Rows(MemoryLoader):
    """Drawn rows with an answer of every type, some unknown."""

    def __init__(self, count: int, batch_size: int) -> None:
        super().__init__(count, batch_size, seed=count)
        draw = torch.Generator().manual_seed(count)
        unknown = torch.rand(count, generator=draw) < 0.1
        cells = torch.randint(0, 2, (count, 3), generator=draw).float()
        cells[unknown] = math.nan
        size = torch.randn(count, generator=draw, dtype=torch.float64) * 3 + 2
        self.queries = np.sort(torch.randint(0, max(1, count // 3), (count,), generator=draw).numpy())
        relevance = torch.randint(0, 3, (count,), generator=draw)
        self.targets = {
            "class": torch.randint(0, 3, (count,), generator=draw).masked_fill(unknown, -1),
            "level": torch.randint(0, 4, (count,), generator=draw).masked_fill(unknown.roll(1), -1),
            "tags": cells,
            "size": size.masked_fill(unknown.roll(2), math.nan),
            "rank": torch.stack([relevance, torch.from_numpy(self.queries)], dim=1),
        }


class Guess(nn.Module):
    """Outputs for every target, a function of the image alone."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.layers = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(108, size, generator=draw) / 50) for name, size in SIZES.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        flat = images.float().reshape(len(images), -1) / 255 - 0.5
        return {name: flat @ layer for name, layer in self.layers.items()}


def metrics(processes: Processes, most: int, sabotage: str = "") -> Count:
    """The scores of 1 to `most` validation rows, of every type of target, and the loss: the same to the bit."""
    count = Count()
    rounds = ValidationData.rounds
    if sabotage == "padded sampler":

        def padded(self: ValidationData, epoch: int) -> Any:
            """What DistributedSampler does: a process without rows of its own sees some again, and counts them."""
            for batch, everyones in rounds(self, epoch):
                more = self.world_size - len(everyones)
                yield batch, [*everyones, *([everyones[0]] * more)]

        ValidationData.rounds = padded  # type: ignore[method-assign]
    for rows in range(1, most + 1):
        found = [_scores(rows, who) for who in (processes, SINGLE_PROCESS)]
        same = repr(found[0]) == repr(found[1])
        count.add(same, "all scores", f"{rows} rows: {_first_difference(*found)}")
    ValidationData.rounds = rounds  # type: ignore[method-assign]
    return count


def _scores(rows: int, who: Processes) -> dict[str, Any]:
    loader = Rows(rows, 4)
    valid = ValidationData(loader, loader.queries, rank=who.rank, world_size=who.world_size)
    metrics = MetricCollection(HEADS, LABELS, ("class", "level"))
    model = Guess()
    losses = {"level": "corn", "size": "huber", "rank": "listnet"}
    heads = {name: Head(HEADS[name].type, loss, 1.0, 0.0, False) for name, loss in losses.items()}
    criterion = drawn_criterion(heads, False, 0, 1)
    state = dataclasses.make_dataclass("State", ["average", "criterion", "progress"])(
        dataclasses.make_dataclass("Average", ["model"])(model),
        criterion,
        dataclasses.make_dataclass("Progress", ["epoch"])(0),
    )
    scores = loop.evaluate(state, valid, metrics, dataclasses.replace(SETTINGS, processes=who))
    results = metrics.compute()
    samples = {name: one["samples"] for name, one in results["targets"].items()}
    return {"scores": scores, "results": results, "samples": samples, "flat": flat_scores(results)}


def _first_difference(one: Any, other: Any, where: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one:
            if repr(one[key]) != repr(other.get(key)):
                return _first_difference(one[key], other.get(key), f"{where}.{key}")
    return f"{where}: {one!r:.60} and {other!r:.60}"


# States


def whole_runs(processes: Processes, sabotage: str = "") -> Count:
    """Two epochs with an average of the weights, dropout, batch norm, clipping: every process ends in the same bytes,
    near those of one process; the same epochs are best."""
    count = Count()
    merge = Processes.merge_statistics
    if sabotage == "no merging":
        Processes.merge_statistics = lambda *arguments: None  # type: ignore[method-assign]
        Processes.require_same_weights = lambda *arguments: None  # type: ignore[method-assign]
    for rows, batch, accumulate, chunk_size in (
        (16, 2, 1, 0),
        (13, 2, 1, 0),
        (11, 3, 2, 0),
        (9, 2, 2, 0),
        (17, 4, 2, 2),  # batch norm's statistics move once for each chunk
    ):
        ends = []
        for who in (processes, SINGLE_PROCESS):
            data = dataclasses.replace(
                training(rows, batch, accumulate * processes.world_size),
                rank=who.rank,
                world_size=who.world_size,
            )
            # Not Adam: it divides a rounding error by its own size where a gradient is 0 but for rounding.
            state = state_of(convolutional(), data, "sgd", lr=0.05, decay=0.8)
            valid = dataclasses.replace(validation(), rank=who.rank, world_size=who.world_size)
            state.progress.chunk_size = chunk_size
            settings = dataclasses.replace(SETTINGS, clip_norm=1.0, processes=who)
            loop.train(state, data, valid, board(), settings, Shelf())
            ends.append(state)
        ours, theirs = (_flat(state) for state in ends)
        everyones = processes.all_gather_object(ours.numpy().tobytes().hex())
        off = float((ours - theirs).abs().max())
        same = len(set(everyones)) == 1
        best = ends[0].progress.best_epoch == ends[1].progress.best_epoch
        count.add(
            same and off < 1e-5 and best,
            "runs",
            f"{rows} rows, chunks of {chunk_size or batch}: the same {same}, off by {off:.2g}, best {best}",
        )
    Processes.merge_statistics = merge  # type: ignore[method-assign]
    return count


def _flat(state: TrainState) -> Tensor:
    parts = [state.model, state.average.model]
    return torch.cat([x.detach().double().flatten() for part in parts for x in part.state_dict().values()])


# Numbers that are not finite


def non_finite(processes: Processes, sabotage: str = "") -> Count:
    """A loss or gradient that is not finite, on one process or all, in any update: all stop before its step."""
    count = Count()
    refuse = NonFiniteGuard.check
    if sabotage == "unchecked":
        NonFiniteGuard.check = lambda self, update: True  # type: ignore[method-assign]
    for kind in ("nan loss", "inf loss", "nan gradient", "inf gradient", "nan validation"):
        for guilty in (0, 1, -1):
            for update in range(
                1, -(-7 // processes.world_size) + 1
            ):  # the last one with an empty or short share
                problem = _poisoned(processes, kind, guilty, update)
                everyones = processes.all_gather_object(problem)
                found = "; ".join(f"process {r}: {p}" for r, p in enumerate(everyones) if p)
                who = "all" if guilty < 0 else f"process {guilty}"
                count.add(not found, f"{kind}, {who}", f"update {update}: {found}")
    NonFiniteGuard.check = refuse  # type: ignore[method-assign]
    return count


def _poisoned(processes: Processes, kind: str, guilty: int, update: int) -> str:
    data = dataclasses.replace(
        training(14, 2, processes.world_size), rank=processes.rank, world_size=processes.world_size
    )
    state = state_of(convolutional(0.0), data, "adamw", lr=0.01)
    valid = dataclasses.replace(validation(), rank=processes.rank, world_size=processes.world_size)
    mine = guilty in (processes.rank, -1)
    forward = state.model.forward
    parameter = state.parameters[0]

    def poisoned(images: Tensor) -> dict[str, Tensor]:
        outputs = forward(images)
        training_now = state.model.training
        now = mine and training_now and state.progress.update == update - 1
        if kind == "nan validation":
            now = mine and not training_now
        if now and "gradient" not in kind:
            value = math.inf if "inf" in kind else math.nan
            outputs = {name: raw * value for name, raw in outputs.items()}
        return outputs

    def hooked(gradient: Tensor) -> Tensor:
        now = mine and "gradient" in kind and state.progress.update == update - 1
        return torch.full_like(gradient, math.inf if "inf" in kind else math.nan) if now else gradient

    state.model.forward = poisoned  # type: ignore[method-assign]
    handle = parameter.register_hook(hooked)
    shelf = _Kept()
    settings = dataclasses.replace(SETTINGS, epochs=1, processes=processes)
    try:
        loop.train(state, data, valid, board(), settings, shelf)
    except NonFiniteError as error:
        if kind == "nan validation":
            return "" if "validation" in str(error) else f"another error: {error}"
        if state.progress.update != update - 1:
            return f"stopped after update {state.progress.update}"
        if any(not bool(x.isfinite().all()) for x in state.model.state_dict().values()):
            return "weights or statistics are not finite"
        if not shelf.saved or shelf.saved[-1] != (0, update - 1):
            return f"kept {shelf.saved}"
        rows = {name for name in data.ids if name in str(error)}
        return (
            ""
            if len(rows) >= min(2, 14 - 2 * processes.world_size * (update - 1))
            else f"the samples are not named: {error}"
        )
    finally:
        handle.remove()
    return "nothing was raised"


class _Kept(Shelf):
    def save(self, state: TrainState, best: bool) -> None:
        self.saved.append((state.progress.epoch, state.progress.update))  # type: ignore[arg-type]


# What is called


def several(processes: Processes, out: Path, checks: Sequence[str]) -> None:
    """Run the checks, `NAME`, `NAME=SIZE` or `NAME!SABOTAGE`, and write what they counted."""
    found = {}
    for check in checks:
        name, _, sabotage = check.partition("!")
        name, _, size = name.partition("=")
        started = time.monotonic()
        options: dict[str, Any] = {"sabotage": sabotage} if sabotage else {}
        count = {
            "gradients": lambda: window_gradients(processes, int(size or 50), **options),  # noqa: B023
            "loop": lambda: loop_gradients(processes),
            "metrics": lambda: metrics(processes, int(size or 101), **options),  # noqa: B023
            "runs": lambda: whole_runs(processes, **options),  # noqa: B023
            "non-finite": lambda: non_finite(processes, **options),  # noqa: B023
        }[name]()
        everyones = processes.all_gather_object(count.as_dict())
        found[check] = everyones[0] | {
            "held": min(one["held"] for one in everyones),
            "failures": [failure for one in everyones for failure in one["failures"]],
            "seconds": round(time.monotonic() - started, 1),
        }
    if processes.is_main_process:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group() as together:
        several(together, Path(sys.argv[1]), sys.argv[2:])
