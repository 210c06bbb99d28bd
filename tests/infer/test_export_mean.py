"""Several models in one ONNX file: the mean that `mean_outputs` takes of them."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from classwise.infer.ensemble import decoded_outputs, mean_outputs
from classwise.infer.export import module_bytes
from classwise.infer.export_mean import Mean
from classwise.model.classifier import Classifier, build_classifier
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

HEADS: list[dict[str, Head]] = [
    {
        "kind": ClassHead(4, adjustment=(0.5 * model, 0.0, -1.0, 0.2)),
        "level": OrdinalHead(4),
        "tags": MultilabelHead(3),
        "size": RegressionHead(mean=10.0 * model, std=2.0 + model),
        "rank": RankingHead(),
    }
    for model in range(2)
]


def models(scale: float) -> list[Classifier]:
    """Two small networks whose outputs are as far from 0 as `scale` makes them."""
    sizes = {name: head.outputs for name, head in HEADS[0].items()}
    found = [
        build_classifier("small_cnn", "none", (16, 12), "pad", 0.0, sizes, seed=seed).eval()
        for seed in range(2)
    ]
    with torch.no_grad():
        for head in (head for model in found for head in model.heads):
            head.weight.mul_(scale)
    return found


@pytest.mark.parametrize(
    ("of", "scale"), [("probabilities", 100.0), ("logits", 100.0), ("probabilities", 1e5)]
)
def test_the_file_computes_the_mean_of_targets_of_every_type(of: str, scale: float) -> None:
    """Also of logits of some thousands, whose probabilities float32 cannot hold."""
    built = models(scale)
    data = module_bytes(Mean(built, HEADS, of), built[0].metadata)
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [f"targets.{name}" for name in HEADS[0]]
    for count in (1, 3):
        images = np.random.default_rng(count).integers(0, 256, (count, 3, 16, 12), dtype=np.uint8)
        expected = expected_of(built, images, of)
        found = session.run(None, {"images": images})
        for name, raw in zip(HEADS[0], found, strict=True):
            assert raw.dtype == np.float32
            np.testing.assert_allclose(raw, expected[name].numpy(), rtol=1e-4, atol=1e-5 * scale)
    if scale > 1000:
        assert float(expected["kind"].abs().max()) > 500


def expected_of(built: Sequence[Classifier], images: np.ndarray, of: str) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        decoded = [
            decoded_outputs(model(torch.from_numpy(images)), heads)
            for model, heads in zip(built, HEADS, strict=True)
        ]
    return mean_outputs(decoded, HEADS[0], of)


def test_the_images_are_prepared_once_for_all_models() -> None:
    """One operator takes the images, and one what it makes of them."""
    built = [build_classifier("small_cnn", "none", (16, 12), "pad", 0.0, {"a": 3}, seed=i) for i in range(2)]
    data = module_bytes(Mean(built, [{"a": ClassHead(3)}] * 2, "probabilities"), built[0].metadata)
    graph = onnx.load_model_from_string(data).graph
    (first,) = (node for node in graph.node if "images" in node.input)
    assert sum(first.output[0] in node.input for node in graph.node) == 1
    assert sum(node.op_type == "Conv" for node in graph.node) == 8
