"""The mean of several models, against means of probabilities that numpy takes."""

import numpy as np
import torch
from torch import Tensor

from classwise.infer.ensemble import DecodedHead, decoded_outputs, mean_engine, mean_outputs
from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)

HEADS: list[dict[str, Head]] = [
    {
        "kind": ClassHead(4, adjustment=(0.5 * model, 0.0, -1.0, 0.2)),
        "level": OrdinalHead(3),
        "tags": MultilabelHead(5),
        "size": RegressionHead(mean=10.0 * model, std=2.0 + model, edges=(5.0,)),
        "rank": RankingHead(),
    }
    for model in range(3)
]
ROWS = 7


def raw(model: int, scale: float = 3.0) -> dict[str, Tensor]:
    """Raw outputs of one model."""
    rng = torch.Generator().manual_seed(model)
    return {
        name: scale * torch.randn(ROWS, head.outputs, generator=rng) for name, head in HEADS[model].items()
    }


def mean(scale: float = 3.0) -> dict[str, Tensor]:
    return mean_outputs([decoded_outputs(raw(model, scale), HEADS[model]) for model in range(3)], HEADS[0])


def test_probabilities_of_classes_are_averaged_after_each_heads_own_adjustment() -> None:
    decoded = [HEADS[model]["kind"].decode(raw(model)["kind"]).double() for model in range(3)]
    expected = np.mean([torch.softmax(one, 1).numpy() for one in decoded], axis=0)
    np.testing.assert_allclose(mean()["kind"].exp().numpy(), expected, rtol=1e-12)


def test_probabilities_of_levels_are_averaged() -> None:
    decoded = [HEADS[model]["level"].decode(raw(model)["level"]).double() for model in range(3)]
    expected = np.mean([one.exp().numpy() for one in decoded], axis=0)
    np.testing.assert_allclose(mean()["level"].exp().numpy(), expected, rtol=1e-5)


def test_the_probability_of_each_label_is_averaged() -> None:
    expected = np.mean([torch.sigmoid(raw(model)["tags"].double()).numpy() for model in range(3)], axis=0)
    np.testing.assert_allclose(torch.sigmoid(mean()["tags"]).numpy(), expected, rtol=1e-12)


def test_numbers_are_averaged_in_the_users_unit() -> None:
    """Each model has standardized by its own training rows."""
    expected = np.mean(
        [raw(model)["size"][:, 0].double().numpy() * (2 + model) + 10 * model for model in range(3)], axis=0
    )
    np.testing.assert_allclose(mean()["size"][:, 0].numpy(), expected, rtol=1e-12)


def test_scores_of_a_ranking_are_averaged() -> None:
    expected = np.mean([raw(model)["rank"][:, 0].double().numpy() for model in range(3)], axis=0)
    np.testing.assert_allclose(mean()["rank"][:, 0].numpy(), expected, rtol=1e-12)


def test_no_probability_is_rounded_to_zero() -> None:
    """Logits of some thousands, whose softmax in float32 is 0 and 1."""
    found = mean(scale=5000.0)
    assert all(bool(values.isfinite().all()) for values in found.values())


def test_a_single_model_says_what_it_says() -> None:
    decoded = decoded_outputs(raw(0), HEADS[0])
    assert all(mean_outputs([decoded], HEADS[0])[name] is values for name, values in decoded.items())


def test_a_decoded_head_reads_what_the_head_itself_decodes() -> None:
    outputs = decoded_outputs(raw(1), HEADS[1])
    for name, head in HEADS[1].items():
        wrapped = DecodedHead(head)
        assert outputs[name].shape == (ROWS, wrapped.outputs)
        own = head.decode(raw(1)[name])
        torch.testing.assert_close(wrapped.decode(outputs[name]), own.double())
        if head.classes:
            assert torch.equal(wrapped.predicted(wrapped.decode(outputs[name])), head.predicted(own))


def test_each_model_sees_each_batch_once() -> None:
    seen: list[tuple[int, Tensor]] = []

    def engine(model: int) -> object:
        def run(images_BCHW: Tensor) -> dict[str, Tensor]:
            seen.append((model, images_BCHW))
            return raw(model)

        return run

    images_BCHW = torch.zeros(ROWS, 3, 4, 4)
    found = mean_engine([engine(model) for model in range(3)], HEADS)(images_BCHW)  # type: ignore[misc]
    assert [model for model, images in seen if images is images_BCHW] == [0, 1, 2]
    assert all(torch.equal(found[name], values) for name, values in mean().items())
