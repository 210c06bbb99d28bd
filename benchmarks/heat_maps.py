"""Which heat maps show what an answer comes from: `python benchmarks/heat_maps.py RUN... [--images 60] [--seed 1]`.

Of each run, so many validation images, as many of each class, and what the model predicts for them. Each candidate's
fifth of the image is hidden under the image's mean color (the answer should fall), and everything but that fifth (it
should stay). A random fifth and the middle of the image stand beside them.

    fall    of the probability, with the fifth hidden
    odds    the same of its log odds
    kept    the probability with that fifth alone
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.compose.dataset import prepare
from classwise.compose.loaders import split_images
from classwise.config.load import load_config
from classwise.console import Console
from classwise.explain.attention import attention_gradients
from classwise.explain.evidence import evidence, probability
from classwise.explain.hiding import hidden, random_parts, strongest
from classwise.explain.model import AT_ONCE, ExplainedModel
from classwise.explain.spatial import FeatureMap, Score, feature_maps
from classwise.run.checkpoint import read_checkpoint
from classwise.run.explained_rows import explained_model, stacked
from classwise.run.folder import RunFolder
from classwise.run.predictor import Predictor

Maps = dict[str, Tensor]
Weighting = Callable[[FeatureMap], Tensor]

WEIGHTINGS: dict[str, Weighting] = {
    "Grad-CAM": lambda each: (each.gradient.mean(dim=(2, 3), keepdim=True) * each.values).sum(dim=1),
    "HiResCAM": lambda each: (each.gradient * each.values).sum(dim=1),
    "HiResCAM, centered": lambda each: (
        each.gradient * (each.values - each.values.mean(dim=(2, 3), keepdim=True))
    ).sum(dim=1),
    "LayerCAM": lambda each: (each.gradient.clamp_min(0) * each.values.clamp_min(0)).sum(dim=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for run in arguments.runs:
        compare(RunFolder(run), arguments.images, arguments.seed)


def compare(folder: RunFolder, count: int, seed: int) -> None:
    """Print the table of one run."""
    config = load_config(folder.config)
    checkpoint = folder.checkpoints / "best"
    predictor = Predictor.of(read_checkpoint(checkpoint))
    name = next(iter(predictor.heads))
    splits = prepare(config, Console(quiet=True), sides=folder.sides())
    dataset = split_images(splits.valid, config, predictor.model.metadata)
    rows = chosen_rows(splits.valid.labels[name], count, seed)
    model = explained_model(predictor)
    found: dict[str, list[Tensor]] = {}
    before = []
    for start in range(0, len(rows), AT_ONCE):
        images_BCHW = stacked(dataset, rows[start : start + AT_ONCE])
        outputs = model.outputs(images_BCHW)
        head = model.answers[name]
        classes = {name: head.predicted(head.decode(outputs[name]))}
        before.append(probability(outputs, model.answers, classes))
        for candidate, maps_BHW in candidates(model, images_BCHW, classes, seed + start).items():
            found.setdefault(candidate, []).append(
                measured(model, images_BCHW, outputs, classes, strongest(maps_BHW))
            )
    print(f"{folder.path}: {len(rows)} images, mean probability {torch.cat(before).mean():.3f}")
    means = {candidate: torch.cat(parts).mean(dim=0).tolist() for candidate, parts in found.items()}
    print(f"{'':<38} {'fall':>7} {'odds':>7} {'kept':>7}")
    for candidate, (fall, odds, kept) in sorted(means.items(), key=lambda item: -item[1][1]):
        print(f"{candidate:<38} {fall:7.3f} {odds:7.2f} {kept:7.3f}", flush=True)


def chosen_rows(class_N: np.ndarray, count: int, seed: int) -> list[int]:
    """As many rows of each class, drawn by the seed."""
    rng = np.random.default_rng(seed)
    numbers = np.unique(class_N[class_N >= 0])
    each = max(1, count // len(numbers))
    return [int(row) for k in numbers for row in rng.permutation(np.flatnonzero(class_N == k))[:each]]


def measured(
    model: ExplainedModel,
    images_BCHW: Tensor,
    outputs: dict[str, Tensor],
    classes: dict[str, Tensor],
    part_BHW: Tensor,
) -> Tensor:
    """(B, 3): fall, odds and kept. `outputs`: of the images as they are."""
    without = model.outputs(hidden(images_BCHW, part_BHW))
    alone = model.outputs(hidden(images_BCHW, ~part_BHW))
    p_B, p_without_B, p_alone_B = (probability(o, model.answers, classes) for o in (outputs, without, alone))
    odds_B = evidence(outputs, model.answers, classes) - evidence(without, model.answers, classes)
    return torch.stack([p_B - p_without_B, odds_B, p_alone_B], dim=1)


def candidates(model: ExplainedModel, images_BCHW: Tensor, classes: dict[str, Tensor], seed: int) -> Maps:
    """maps_BHW of each candidate, of the first of the models."""
    height, width = images_BCHW.shape[2:]
    score = partial(evidence, heads=model.heads[0], classes=classes)
    vertical_H, horizontal_W = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    middle_HW = -(vertical_H[:, None] ** 2 + horizontal_W**2)
    found = {
        "a random fifth": random_parts(len(images_BCHW), (height, width), seed).float(),
        "the middle": middle_HW.expand(len(images_BCHW), -1, -1),
        "what is built": model.maps(images_BCHW, classes),
    }
    if model.method() == "attention":
        return found | of_transformer(model, images_BCHW, score)
    feature = feature_maps(model.models[0], images_BCHW, score)
    for name, weighting in WEIGHTINGS.items():
        found |= {f"{name}, {how}": maps for how, maps in joined(feature, weighting, (height, width)).items()}
    return found


def joined(feature: list[FeatureMap], weighting: Weighting, size: tuple[int, int]) -> Maps:
    """The maps of all pooled layers as one, in several ways; of a network without them, that of its last layer."""
    maps = [enlarged(weighting(each), size) * each.values[0, 0].numel() for each in feature]
    positive = [map_BHW.clamp_min(0) for map_BHW in maps]
    found = {"last layer": positive[0]}
    if len(maps) > 1:
        totals = [map_BHW.sum(dim=(1, 2), keepdim=True).clamp_min(1e-20) for map_BHW in positive]
        found |= {
            "sum of positive": torch.stack(positive).sum(dim=0),
            "equal parts": torch.stack([m / total for m, total in zip(positive, totals, strict=True)]).sum(
                dim=0
            ),
        }
    return found


def of_transformer(model: ExplainedModel, images_BCHW: Tensor, score: Score) -> Maps:
    """Rollout (Abnar and Zuidema 2020), and the last layer's weighted attention, beside what is built."""
    first = model.models[0]
    attentions, gradients = attention_gradients(first, images_BCHW, score)
    backbone = first.backbone
    own_TT = torch.eye(attentions[0].shape[-1])
    rollout_BTT = own_TT.expand(len(images_BCHW), -1, -1)
    for attention in attentions:
        rollout_BTT = (attention.mean(dim=1) + own_TT) / 2 @ rollout_BTT
    last_BTT = (attentions[-1] * gradients[-1]).clamp_min(0).mean(dim=1)

    def patches(relevance_BTT: Tensor) -> Tensor:
        prefix = backbone.num_prefix_tokens
        pooled_BT = (
            relevance_BTT[:, 0] if backbone.global_pool == "token" else relevance_BTT[:, prefix:].mean(dim=1)
        )
        map_BHW = pooled_BT[:, prefix:].reshape(-1, *backbone.patch_embed.grid_size)
        return enlarged(map_BHW, (images_BCHW.shape[2], images_BCHW.shape[3]))

    return {
        "rollout": patches(rollout_BTT),
        "last layer's weighted attention": patches(last_BTT),
    }


def enlarged(map_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(map_BHW[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


if __name__ == "__main__":
    main()
