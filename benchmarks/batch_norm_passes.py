"""How many passes over its micro-batches an update needs until batch norm's statistics are those of the whole update.

    python benchmarks/batch_norm_passes.py [--images 32] [--micro-batch 8] [--size 64]

Why there is no `training.batch_norm = "update"`. The statistics of a layer depend on those of all layers before it, so
each pass makes those of one more layer exact. The gradient flows through the statistics as well, in the other
direction: each backward pass makes the gradient by the statistics of one more layer exact. Printed is the relative
error of the gradient, in float64, after so many passes of either kind, and what they cost.
"""

import argparse

import torch
from torch import Tensor, nn

from classwise.data.batch import Batch
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.model.batch_norm import batch_norms
from simulations.batch_norm import HEAD, LITE, PACKAGE, Setting, draw_batch, draw_model, gradient


class GivenStatistics(nn.Module):
    """Batch norm by a given mean and variance, which are leaves of the graph. `sums`: what a forward pass adds to the
    numbers that they should be."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.mean = norm.running_mean.clone().requires_grad_()
        self.var = norm.running_var.clone().requires_grad_()
        self.slope_of_mean = torch.zeros_like(self.mean)  # of the loss, by the mean
        self.slope_of_var = torch.zeros_like(self.var)
        self.count = 1.0
        self.restart()

    def restart(self) -> None:
        """Begin a pass."""
        self.total: Tensor | float = 0.0
        self.total_of_squares: Tensor | float = 0.0
        self.seen = 0
        self.terms: Tensor | float = 0.0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_CN = x_BCHW.transpose(0, 1).flatten(1)
        self.seen += x_CN.shape[1]
        self.total = self.total + x_CN.detach().sum(1)
        self.total_of_squares = self.total_of_squares + x_CN.detach().square().sum(1)
        # What this micro-batch adds to the statistics, times the slope of the loss by them.
        squares_C = (x_CN - self.mean.detach()[:, None]).square().sum(1)
        terms = self.slope_of_mean @ x_CN.sum(1) + self.slope_of_var @ squares_C
        self.terms = terms / self.count
        inverse_C = (self.var + self.norm.eps).rsqrt() * self.norm.weight
        shape = (1, -1, 1, 1)
        normalized = (x_BCHW - self.mean.view(shape)) * inverse_C.view(shape) + self.norm.bias.view(shape)
        return self.norm.act(self.norm.drop(normalized)) if hasattr(self.norm, "act") else normalized


def errors(setting: Setting, images: int, micro_batch: int) -> tuple[int, dict[str, float]]:
    """The number of batch norms, and the gradient's error by what was done."""
    batch = draw_batch(images, setting.size, seed=0)
    model = draw_model(setting, seed=0)
    whole = gradient(model, [batch])
    found = {
        "statistics of the micro-batches (1 pass)": _distance(
            gradient(model, _cut(batch, micro_batch)), whole
        )
    }

    # From the running statistics of the start, which the calls above have moved.
    model = draw_model(setting, seed=0)
    layers = _replace_norms(model)
    parts = _cut(batch, micro_batch)
    depth = len(layers)
    for passes in range(1, depth + 1):
        _statistics_pass(model, layers, parts)
        if passes in (1, depth):
            plural = "es" if passes > 1 else ""
            name = f"{passes} pass{plural} for the statistics, which then are constants"
            found[name] = _distance(_gradient_pass(model, layers, parts, keep_slopes=False), whole)
    for _ in range(depth + 1):
        error = _distance(_gradient_pass(model, layers, parts, keep_slopes=True), whole)
    found[f"{depth} passes for the statistics, {depth + 1} for the gradient"] = error
    return depth, found


def _replace_norms(model: nn.Module) -> list[GivenStatistics]:
    """Every batch norm by one with given statistics, in order."""
    norms = set(batch_norms(model))
    layers = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child in norms:
                layers.append(GivenStatistics(child))
                setattr(parent, name, layers[-1])
    return layers


@torch.no_grad()
def _statistics_pass(model: nn.Module, layers: list[GivenStatistics], parts: list[Batch]) -> None:
    """A forward pass over all micro-batches; afterwards each layer has the statistics of what came to it."""
    for layer in layers:
        layer.restart()
    for part in parts:
        model(part.images)
    for layer in layers:
        mean_C = layer.total / layer.seen
        layer.var.copy_(layer.total_of_squares / layer.seen - mean_C.square())
        layer.mean.copy_(mean_C)
        layer.count = float(layer.seen)


def _gradient_pass(
    model: nn.Module, layers: list[GivenStatistics], parts: list[Batch], keep_slopes: bool
) -> Tensor:
    """The gradient, with the slopes by the statistics as far as they are known; afterwards one layer more knows its."""
    criterion = Criterion({HEAD: CrossEntropy(torch.linspace(0.2, 5, 10, dtype=torch.float64))}, {HEAD: 1.0})
    normalizer = sum(criterion.normalizer(part.targets) for part in parts)
    model.zero_grad()
    for layer in layers:
        layer.mean.grad = layer.var.grad = None
        layer.restart()
    for part in parts:
        outputs = model(part.images)
        loss = criterion(outputs, part.targets, normalizer) + sum(layer.terms for layer in layers)
        loss.backward()
    for layer in layers if keep_slopes else ():
        layer.slope_of_mean = layer.mean.grad.clone()
        layer.slope_of_var = layer.var.grad.clone()
    own = {id(statistic) for layer in layers for statistic in (layer.mean, layer.var)}
    return torch.cat([p.grad.flatten() for p in model.parameters() if id(p) not in own])


def _cut(batch: Batch, size: int) -> list[Batch]:
    return list(batch.parts(size))


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    settings = [
        Setting("small_cnn", "small_cnn", size=options.size),
        Setting(f"{LITE}, pretrained", LITE, PACKAGE, size=options.size),
    ]
    for setting in settings:
        depth, found = errors(setting, options.images, options.micro_batch)
        print(f"\n{setting.name}: {depth} batch norms, {options.images} images by {options.micro_batch}")
        for name, error in found.items():
            print(f"{error:10.2g}  {name}", flush=True)


if __name__ == "__main__":
    main()
