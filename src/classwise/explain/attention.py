"""Transformers: which patches the answer's attention comes from.

The relevance of Chefer, Gur and Wolf 2021 ('Generic Attention-model Explainability', equations 5 and 6): of each layer,
the attention times its gradient, where positive, averaged over the heads; and through the layers, from each token to
the patches that it was made of.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classwise.explain.spatial import Score, blank_image
from classwise.model.classifier import Classifier


def is_plain_transformer(model: Classifier) -> bool:
    """Whether in all layers of the backbone all patches attend to all, as in timm's vision transformers; tried with one
    image. `model`: in eval mode."""
    backbone: Any = model.backbone
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    prefix = getattr(backbone, "num_prefix_tokens", None)
    if not _layers(backbone) or grid is None or prefix is None:
        return False
    with torch.no_grad(), _kept_attention(backbone) as kept:
        model(blank_image(model))
    tokens = prefix + grid[0] * grid[1]
    return bool(kept) and all(attention.shape[2:] == (tokens, tokens) for attention in kept)


def attention_maps(model: Classifier, images_BCHW: Tensor, score: Score) -> Tensor:
    """maps_BHW, one value a patch. `model`: a plain transformer in eval mode, with parameters that need no gradient."""
    attentions, gradients = attention_gradients(model, images_BCHW, score)
    relevance_BTT = token_relevance(attentions, gradients)

    # What the pooled features are made of: the class token, or the mean of all patches.
    backbone: Any = model.backbone
    prefix = backbone.num_prefix_tokens
    from_class_token = backbone.global_pool == "token"
    pooled_BT = relevance_BTT[:, 0] if from_class_token else relevance_BTT[:, prefix:].mean(dim=1)
    height, width = backbone.patch_embed.grid_size
    return pooled_BT[:, prefix:].reshape(-1, height, width)


def attention_gradients(
    model: Classifier, images_BCHW: Tensor, score: Score
) -> tuple[list[Tensor], list[Tensor]]:
    """Of each layer the attention (B, heads, tokens, tokens), and the gradient of what is explained by it."""
    with _kept_attention(model.backbone) as kept:
        outputs = model(images_BCHW.float().requires_grad_())
    gradients = torch.autograd.grad(score(outputs).sum(), kept)
    return [attention.detach() for attention in kept], list(gradients)


def token_relevance(attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """(B, tokens, tokens): what each token's final state owes to the others' first ones, row by row."""
    own_TT = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    relevance_BTT = own_TT.expand(len(attentions[0]), -1, -1)
    for attention, gradient in zip(attentions, gradients, strict=True):
        weighted_BTT = (attention * gradient).clamp_min(0).mean(dim=1)
        relevance_BTT = relevance_BTT + weighted_BTT @ relevance_BTT
    return relevance_BTT - own_TT


def _layers(backbone: nn.Module) -> list[Any]:
    """The attention of each layer, in order."""
    return [
        layer for layer in backbone.modules() if hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop")
    ]


@contextlib.contextmanager
def _kept_attention(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """The attention of each layer, as it is computed until the end of the block."""
    kept: list[Tensor] = []
    layers = _layers(backbone)
    were_fused = [layer.fused_attn for layer in layers]
    handles = [layer.attn_drop.register_forward_hook(lambda *call: kept.append(call[2])) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False  # the fused kernel does not give its attention
        yield kept
    finally:
        for layer, was_fused in zip(layers, were_fused, strict=True):
            layer.fused_attn = was_fused
        for handle in handles:
            handle.remove()
