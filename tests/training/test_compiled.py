"""The compiled forward pass: each size for itself, whatever came before, and only the sizes of whole batches."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.model.classifier import Classifier, build_classifier
from classwise.training.compiled import compiled, compiled_sizes


@pytest.fixture
def made_for(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The shapes that code was made for, in order, by a compiler that leaves torch's graph as it is."""
    shapes: list[list[Any]] = []

    def keep(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
        images = next(x for x in inputs if isinstance(x, Tensor) and x.dtype == torch.uint8)
        shapes.append(list(images.shape))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    return shapes


def model() -> Classifier:
    """The small network."""
    return build_classifier("small_cnn", "none", (8, 8), "squash", 0.0, {"a": 2}, seed=0).eval()


@torch._dynamo.config.patch(recompile_limit=2)  # by default 8, which would take longer
def test_each_size_is_compiled_for_itself(made_for: list[list[Any]]) -> None:
    """By its number: code for any number would depend on those that this process has seen. Once each, beyond the
    number after which torch compiles nothing more, and a second model is not affected by the first."""
    sizes = range(1, 5)
    for _ in range(2):
        made_for.clear()
        eager = model()
        run = compiled(eager, frozenset(sizes))
        for size in (*sizes, *sizes):
            images_BCHW = torch.full((size, 3, 8, 8), size, dtype=torch.uint8)
            with torch.no_grad():
                assert torch.equal(run(images_BCHW)["a"], eager(images_BCHW)["a"])
        assert made_for == [[size, 3, 8, 8] for size in sizes]
        assert all(type(number) is int for shape in made_for for number in shape)


def test_other_sizes_and_features_are_not_compiled(made_for: list[list[Any]]) -> None:
    """A short last batch, and the features of a frozen backbone."""
    eager = model()
    run = compiled(eager, frozenset({4}))
    images_BCHW = torch.zeros((3, 3, 8, 8), dtype=torch.uint8)
    features_BF = torch.zeros((4, eager.feature_count))
    with torch.no_grad():
        assert torch.equal(run(images_BCHW)["a"], eager(images_BCHW)["a"])
        assert torch.equal(run(features_BF)["a"], eager(features_BF)["a"])
    assert made_for == []


@pytest.mark.parametrize(("batch", "micro"), [(64, 0), (50, 0), (64, 10), (7, 3), (1, 0), (33, 40)])
def test_whole_batches_are_compiled_in_whatever_pieces(batch: int, micro: int) -> None:
    """All sizes that a whole batch's parts have, from the given micro-batch down to one image, halved each time that
    memory runs out."""
    whole, most, found = Batch(torch.zeros(batch, 1), {}, np.arange(batch)), micro, set[int]()
    while 1 not in found:
        found |= {len(part) for part in whole.parts(most)}
        most = -(-(most or batch) // 2)
    assert compiled_sizes(batch, micro) == found
