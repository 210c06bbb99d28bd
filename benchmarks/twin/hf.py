"""How the Hugging Face Trainer accumulates, for small image models of our own size, made without a download."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classwise.demo.fashion import LABELS, read_bundle
from twin.updates import relative_difference, share_text

SIZE = 32
TOLERANCE = 1e-4  # relative, of float32 sums that are added up in another order
TRANSFORMER: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
WITHOUT_DROPOUT: dict[str, Any] = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViT", TRANSFORMER | WITHOUT_DROPOUT),
    "DeiT": ("DeiT", TRANSFORMER | WITHOUT_DROPOUT),
    "DINOv2": ("Dinov2", {key: value for key, value in TRANSFORMER.items() if key != "intermediate_size"}),
    "Swin": (
        "Swin",
        {
            "image_size": SIZE,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        }
        | WITHOUT_DROPOUT,
    ),
    "ConvNeXt": ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 4}),
    "BEiT": ("Beit", TRANSFORMER | WITHOUT_DROPOUT),
    "SigLIP": ("Siglip", TRANSFORMER),
    "ResNet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "RegNet": ("RegNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8}),
    "MobileNetV2": ("MobileNetV2", {"image_size": SIZE, "classifier_dropout_prob": 0.0}),
}
"""By its name: the prefix of its classes in transformers, and what makes it small and free of dropout."""


@dataclass(frozen=True)
class Found:
    """The gradient of the Trainer's only step and the loss that it logged, beside those of the same micro-batches by
    hand: the sum over their rows, divided by the rows of the update."""

    gradient: Tensor
    loss: float
    gradient_by_rows: Tensor
    loss_by_rows: float
    gradient_of_means: Tensor
    """The mean of the micro-batches' own gradients: what dividing by their number gives."""
    micro_batches: int


def new_model(name: str) -> Any:
    """A model with random weights, the same every time."""
    import transformers

    prefix, options = MODELS[name]
    config_class = (
        transformers.SiglipConfig if prefix == "Siglip" else getattr(transformers, f"{prefix}Config")
    )
    if prefix == "Siglip":
        config = config_class(vision_config=options, num_labels=len(LABELS))
    else:
        config = config_class(num_labels=len(LABELS), **options)
    torch.manual_seed(0)
    return getattr(transformers, f"{prefix}ForImageClassification")(config)


def rows_of(count: int) -> list[dict[str, Any]]:
    """Bundled images, padded to SIZE x SIZE, as the Trainer takes them."""
    images_NHW, labels_N = (torch.from_numpy(array) for array in read_bundle("train"))
    chosen = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(1))[:count]
    padded_NHW = nn.functional.pad(images_NHW[chosen].float() / 127.5 - 1, (2, 2, 2, 2))
    pixels_NCHW = padded_NHW[:, None].expand(-1, 3, -1, -1)
    return [
        {"pixel_values": image, "labels": label}
        for image, label in zip(pixels_NCHW, labels_N[chosen].long(), strict=True)
    ]


def one_update(name: str, rows: int) -> Found:
    """One step of the Trainer over so many rows, in micro-batches of 32, up to four of them."""
    import transformers

    transformers.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    model = new_model(name)
    batches: list[dict[str, Tensor]] = []
    gradients: list[Tensor] = []

    def collate(items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        batch = {key: torch.stack([item[key] for item in items]) for key in items[0]}
        batches.append(batch)
        return batch

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=1,
            per_device_train_batch_size=32,
            gradient_accumulation_steps=4,
            optim="sgd",
            learning_rate=1e-3,
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(model, arguments, data_collator=collate, train_dataset=rows_of(rows))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.create_optimizer()
        trainer.optimizer.register_step_pre_hook(lambda *_: gradients.append(flat_gradient(model)))
        trainer.train()

    model.load_state_dict(before)
    by_rows, of_means, loss = by_hand(model, batches)
    (gradient,) = gradients
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return Found(gradient, float(logged), by_rows, loss, of_means, len(batches))


def by_hand(model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor, float]:
    """Of the same micro-batches: the gradient by rows, the mean of their own gradients, and the loss by rows."""
    model.train()
    rows = [len(batch["labels"]) for batch in batches]
    own, losses = [], []
    for batch in batches:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(pixel_values=batch["pixel_values"]).logits, batch["labels"])
        loss.backward()
        own.append(flat_gradient(model))
        losses.append(float(loss.detach()))
    weights = torch.tensor(rows) / sum(rows)
    stacked = torch.stack(own)
    return weights @ stacked, stacked.mean(dim=0), float(weights @ torch.tensor(losses))


def flat_gradient(model: nn.Module) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def hf_table() -> list[str]:
    """Markdown: how far the Trainer's gradient is from that by rows, for full and for short updates."""
    lines = [
        "| model | 4 micro-batches of 32 | 32, 32 and 16 of 4 | logged loss of the latter, and by hand |",
        "|---|---|---|---|",
    ]
    for name in MODELS:
        full, short = one_update(name, 128), one_update(name, 80)
        cells = [gradient_text(found) for found in (full, short)]
        lines.append(f"| {name} | {' | '.join(cells)} | {short.loss:.2f}, {short.loss_by_rows:.2f} |")
    return lines


def gradient_text(found: Found) -> str:
    """Which sum of the micro-batches' gradients the Trainer's is, and how far off."""
    off = relative_difference(found.gradient, found.gradient_by_rows)
    if off < TOLERANCE:
        return "by rows: exact"
    factor = float(found.gradient.norm() / found.gradient_by_rows.norm())
    sums = {"mean of means": 1, "sum of means": found.micro_batches}
    for text, times in sums.items():
        if relative_difference(found.gradient, times * found.gradient_of_means) < TOLERANCE:
            return f"{text}: off by {share_text(off)}, x {factor:.2f}"
    return f"off by {share_text(off)}, x {factor:.2f}"
