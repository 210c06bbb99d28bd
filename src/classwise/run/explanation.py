"""Heat maps of a trained model, for any images that `predict` takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from classwise.compose.loaders import evaluation_images
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import ConfigError, DataError, nearest
from classwise.explain.evidence import NUMBERS, probability
from classwise.explain.explanation import Explanation, Hidden
from classwise.explain.hiding import hidden, random_parts, strongest
from classwise.explain.model import AT_ONCE, ExplainedModel
from classwise.model.heads import Head, label_cuts, probabilities
from classwise.run.explained_rows import explained_model, stacked
from classwise.run.prediction_inputs import Source, rows_to_predict
from classwise.run.predictor import Predictor, preserve_torch_state, set_threads

MOST_IMAGES = 200
"""Images that are explained at once: a page with more is slow to open."""
RANDOM_PARTS = 4
"""Random parts that are hidden for comparison."""
TOP = 3
"""Labels whose probability is named."""
JOINT = "joint"
"""Stands for all targets of the joint class together."""


@dataclass(frozen=True)
class Question:
    """What is to be explained: of which `target` (None: of each) which `label` (None: the predicted one), and by which
    `method` (explain/model.py)."""

    target: str | None = None
    label: str | None = None
    method: str = "auto"


def explanations_of(
    predictor: Predictor,
    config: Config,
    source: Source,
    images: str | Path | None,
    ids: Sequence[str] | None,
    question: Question,
    console: Console,
) -> list[Explanation]:
    """For each image of the source, in its order, an explanation for each target in question. Raises ConfigError for a
    question that the model has no answer to, DataError for a bad source."""
    targets = _targets_in(question, predictor)
    rows = rows_to_predict(config, source, images, ids, "error", console).rows
    samples = rows.samples
    if len(samples) > MOST_IMAGES:
        raise DataError(f"{samples.where}: found {len(samples)} images, allowed: up to {MOST_IMAGES} at once")
    dataset = evaluation_images(samples, predictor.model.metadata, config.data.max_pixels, rows.memory)
    if predictor.tta != "none":
        console.line(
            f"note: explained is a single view of each image, without inference.tta = {predictor.tta!r}"
        )

    found: list[Explanation] = []
    with preserve_torch_state():
        set_threads(config)
        model = explained_model(predictor)
        method = model.method(question.method)
        starts = range(0, len(samples), AT_ONCE)
        for start in console.bar(starts, "explaining", len(starts)):
            ids_B = samples.ids[start : start + AT_ONCE]
            images_BCHW = stacked(dataset, range(start, start + len(ids_B)))
            by_target = [
                _explained(
                    model,
                    ids=ids_B,
                    images_BCHW=images_BCHW,
                    target=target,
                    names=list(predictor.joint) if target == JOINT else [target],
                    label=question.label,
                    method=method,
                    labels=predictor.labels,
                )
                for target in targets
            ]
            found += [explanation for of_image in zip(*by_target, strict=True) for explanation in of_image]
    return found


def _targets_in(question: Question, predictor: Predictor) -> list[str]:
    """The targets in question. Raises ConfigError for an unknown target or label, or one that is not clear."""
    heads = predictor.heads
    # A number that is cut at edges has labels, too, but it is explained as a number.
    labels = {name: known for name, known in predictor.labels.items() if heads[name].type not in NUMBERS}
    names = [*heads, *([JOINT] if predictor.joint else [])]
    target, label = question.target, question.label
    if target is not None and target not in names:
        raise ConfigError(f"--target: found {target!r}; {nearest(target, names)}")
    if label is None:
        targets = list(heads) if target is None else [target]
    else:
        targets = [name for name in heads if target in (None, name) and label in labels.get(name, ())]
    if target == JOINT and any(heads[name].type in NUMBERS for name in predictor.joint):
        raise ConfigError(
            "--target: found 'joint', but one of its targets is a number, which has no probability; allowed:"
            f" {', '.join(heads)}"
        )
    if label is not None and target == JOINT:
        raise ConfigError("--label: found with --target joint; allowed: with one of its targets")
    if not targets:
        known = [text for name in heads if target in (None, name) for text in labels.get(name, ())]
        what = f"target {target!r} has no label {label!r}" if target else f"no target has a label {label!r}"
        raise ConfigError(f"--label: {what}; {nearest(label or '', known) if known else 'it is a number'}")
    if label is not None and len(targets) > 1:
        raise ConfigError(
            f"--label: found {label!r}, a label of {' and '.join(targets)}; name one by --target"
        )
    return targets


def _explained(
    model: ExplainedModel,
    ids: Sequence[str],
    images_BCHW: Tensor,
    target: str,
    names: Sequence[str],
    label: str | None,
    method: str,
    labels: Mapping[str, Sequence[str]],
) -> list[Explanation]:
    """An explanation of one target, or of the joint class, for each of some images. `names`: the target, or those of
    the joint class."""
    outputs = model.outputs(images_BCHW)
    predicted = {name: predicted_classes(model.answers[name], outputs[name]) for name in names}
    classes = predicted
    if label is not None:
        number = list(labels[target]).index(label)
        classes = {target: torch.full((len(ids),), number)}
    maps_BHW = model.maps(images_BCHW, classes, method)
    value_B = probability(outputs, model.answers, classes).tolist()
    hidden_B = _hidden(model, images_BCHW, maps_BHW, classes)
    images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()

    def words(numbers: Mapping[str, Tensor], b: int) -> str:
        return " · ".join(
            labels[name][int(class_B[b])]
            for name, class_B in numbers.items()
            if model.answers[name].type not in NUMBERS
        )

    top_B: list[tuple[tuple[str, float], ...]] = [()] * len(ids)
    if target != JOINT:
        top_B = _top(model.answers[target], outputs[target], labels.get(target, ()))
    return [
        Explanation(
            id=ids[b],
            target=target,
            label=words(classes, b),
            value=value_B[b],
            predicted=words(predicted, b),
            top=top_B[b],
            method=method,
            heat_map=maps_BHW[b].numpy(),
            image=images_BHWC[b],
            hidden=Hidden(value_B[b], *hidden_B[b]),
        )
        for b in range(len(ids))
    ]


def predicted_classes(head: Head, outputs: Tensor) -> Tensor:
    """The class that is predicted (B,), of several labels the one that is furthest above its cut; 0 of a number, which
    has none."""
    decoded = head.decode(outputs)
    if head.type in NUMBERS:
        return torch.zeros(len(outputs), dtype=torch.int64)
    if head.type == "multilabel":
        cuts = torch.tensor(label_cuts(head) or [0.0], dtype=decoded.dtype)
        return (decoded - cuts).argmax(dim=1)
    return head.predicted(decoded).clamp(min=0)


def _top(head: Head, outputs: Tensor, labels: Sequence[str]) -> list[tuple[tuple[str, float], ...]]:
    """Of each image, the most probable labels with their probabilities; none of a number."""
    if head.type in NUMBERS:
        return [()] * len(outputs)
    decoded = head.decode(outputs)
    p_BK = probabilities(decoded, head.type)
    p_BT, class_BT = p_BK.sort(dim=1, descending=True, stable=True)
    rows = zip(class_BT[:, :TOP].tolist(), p_BT[:, :TOP].tolist(), strict=True)
    return [tuple((labels[k], p) for k, p in zip(*row, strict=True)) for row in rows]


def _hidden(
    model: ExplainedModel, images_BCHW: Tensor, maps_BHW: Tensor, classes: Mapping[str, Tensor]
) -> list[tuple[float, float]]:
    """The explained value of each image without the part that its map marks, and without a random part."""
    marked_B = model.probability(hidden(images_BCHW, strongest(maps_BHW)), classes)
    size = images_BCHW.shape[2], images_BCHW.shape[3]
    random_B = torch.stack(
        [
            model.probability(hidden(images_BCHW, part_HW.expand(len(images_BCHW), -1, -1)), classes)
            for part_HW in random_parts(RANDOM_PARTS, size, seed=0)
        ]
    ).mean(dim=0)
    return list(zip(marked_B.tolist(), random_B.tolist(), strict=True))
