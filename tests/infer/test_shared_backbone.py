"""Models that differ in their heads alone: one pass through the backbone, and the same numbers to the bit."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from classwise.infer.engines import torch_engine
from classwise.infer.ensemble import as_decoded, joined_mean_engine, mean_engine
from classwise.infer.export import module_bytes
from classwise.infer.export_mean import Mean
from classwise.infer.tta import tta_engine
from classwise.model.classifier import Classifier, build_classifier, joined_heads, joined_name, share_backbone
from classwise.model.heads import ClassHead, Head, MultilabelHead

HEADS: list[dict[str, Head]] = [
    {"kind": ClassHead(4, adjustment=(0.5 * model, 0.0, -1.0, 0.2)), "tags": MultilabelHead(3)}
    for model in range(3)
]
CPU = torch.device("cpu")


def models(cosine: bool = False) -> list[Classifier]:
    """Three networks with equal backbones and heads of their own."""
    sizes = {name: head.outputs for name, head in HEADS[0].items()}
    scales = {"kind": 8.0} if cosine else {}
    first = build_classifier("small_cnn", "none", (16, 12), "pad", 0.0, sizes, seed=0, cosine=scales).eval()
    found = [first, copy.deepcopy(first), copy.deepcopy(first)]
    for seed, model in enumerate(found):
        rng = torch.Generator().manual_seed(seed)
        for head in model.heads:
            head.weight.data.copy_(torch.randn(head.weight.shape, generator=rng))
    return found


def images(count: int = 5) -> Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, 16, 12), dtype=np.uint8))


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("tta", ["none", "flip", "flip+scale"])
def test_one_pass_gives_what_several_give(cosine: bool, tta: str) -> None:
    separate = models(cosine)
    engines = [
        tta_engine(torch_engine(model, CPU, torch.float32), heads, tta)
        for model, heads in zip(separate, HEADS, strict=True)
    ]
    own = HEADS if tta == "none" else [as_decoded(heads) for heads in HEADS]
    expected = mean_engine(engines, own)(images())

    together = models(cosine)
    assert share_backbone(together)
    passes: list[int] = []
    together[0].backbone.register_forward_hook(lambda module, given, out: passes.append(len(given[0])))
    names = {joined_name(k, name): head for k, heads in enumerate(HEADS) for name, head in heads.items()}
    engine = tta_engine(torch_engine(joined_heads(together), CPU, torch.float32), names, tta)
    found = joined_mean_engine(engine, own)(images())
    assert len(passes) == {"none": 1, "flip": 2, "flip+scale": 4}[tta]
    assert all(torch.equal(found[name], values) for name, values in expected.items())


def test_the_models_themselves_stay_as_they_are() -> None:
    together = models()
    expected = [model(images()) for model in together]
    assert share_backbone(together)
    joined_heads(together)
    assert together[1].backbone is together[0].backbone
    for model, before in zip(together, expected, strict=True):
        assert list(model.metadata.heads) == ["kind", "tags"]
        after = model(images())
        assert all(torch.equal(after[name], values) for name, values in before.items())


@pytest.mark.parametrize("what", ["weight", "statistics", "mean"])
def test_what_differs_in_more_than_the_heads_shares_nothing(what: str) -> None:
    together = models()
    if what == "weight":
        tensor = next(together[2].backbone.parameters()).data
        tensor[(0,) * tensor.ndim] += 1e-3
    elif what == "statistics":
        next(tensor for tensor in together[2].backbone.buffers() if tensor.is_floating_point())[0] += 1e-3
    else:
        sizes = {name: head.outputs for name, head in HEADS[0].items()}
        together[2] = build_classifier(
            "small_cnn", "none", (16, 12), "pad", 0.0, sizes, seed=0, mean=(0.1, 0.2, 0.3)
        ).eval()
    assert not share_backbone(together)
    assert together[1].backbone is not together[0].backbone


def test_the_file_of_all_models_has_the_backbone_once() -> None:
    separate, together = models(), models()
    large = module_bytes(Mean(separate, HEADS, "probabilities"), separate[0].metadata)
    assert share_backbone(together)
    small = module_bytes(Mean(together, HEADS, "probabilities"), together[0].metadata)
    assert len(small) < 0.5 * len(large)
    outputs = [
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(
            None, {"images": images().numpy()}
        )
        for data in (large, small)
    ]
    for first, second in zip(*outputs, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
