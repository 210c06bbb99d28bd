"""`explanations.json` of a run: heat maps of its rarest classes, for the report.

Of each, the validation rows that the model is wrong about with the most certainty, and those that it gets right with
the most. The images lie in the file, small, so that the report can be written again without model and data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.compose.loaders import split_images
from classwise.compose.splits import DatasetSplits, label_counts
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.dataset import ImageDataset
from classwise.explain.model import AT_ONCE, ExplainedModel
from classwise.explain.overlay import enlarged, overlay
from classwise.files import write_json
from classwise.infer.ensemble import as_decoded, undecoded
from classwise.model.heads import Head, chosen_labels, probabilities
from classwise.report.thumbnails import encode
from classwise.run.folder import RunFolder
from classwise.run.predictor import Predictor, preserve_torch_state, set_threads

MOST_CLASSES = 4
"""Classes that are shown, of all targets together."""
READABLE_SIDE = 176
"""About so many pixels on the longer side are what a smaller image is enlarged to, in whole multiples of its size."""
LONGEST_SIDE = 264
"""Pixels; larger images are kept smaller."""
EXPLAINED_TYPES = ("class", "ordinal", "multilabel")


@dataclass(frozen=True)
class ChosenRow:
    """A validation row: its number, what it is and what is predicted, with the probability; and the class that is
    explained."""

    row: int
    true: str
    predicted: str
    probability: float
    explained: int


@dataclass(frozen=True)
class ChosenClass:
    """A class of a target with so many training `rows`, its worst mistakes and its most certain hits."""

    target: str
    label: str
    rows: int
    mistakes: list[ChosenRow]
    hits: list[ChosenRow]


def write_heat_maps(
    folder: RunFolder,
    predictor: Predictor,
    config: Config,
    splits: DatasetSplits,
    outputs: Mapping[str, Tensor],
    console: Console,
) -> None:
    """Write explanations.json, if the config wants one. Whatever fails is said, and ends no run: what was trained is
    worth more than images of it."""
    path = folder.path / "explanations.json"
    try:
        path.unlink(missing_ok=True)  # of the model that a run had which now has more epochs
        found = explained_rows(predictor, config, splits, outputs)
        if found is not None:
            write_json(path, found)
    except Exception as error:
        console.line(f"warning: the report has no heat maps: {type(error).__name__}: {error}")


def explained_rows(
    predictor: Predictor, config: Config, splits: DatasetSplits, outputs: Mapping[str, Tensor]
) -> dict[str, Any] | None:
    """The contents of explanations.json; None where there is nothing to explain: no rare class with a prediction, or a
    backbone whose maps cost more than a run may spend on them. `outputs`: of the validation rows, as the predictor's
    heads take them. Raises whatever a backbone raises."""
    classes = chosen_classes(predictor, splits, outputs, config.report.explanations)
    if not classes:
        return None
    with preserve_torch_state():
        set_threads(config)
        model = explained_model(predictor)
        method = model.method()
        if method == "occlusion":
            return None
        dataset = split_images(splits.valid, config, predictor.model.metadata)
        small_images = _small_images(model, method, dataset, classes)
    return {
        "method": method,
        "classes": [
            {
                "target": each.target,
                "label": each.label,
                "rows": each.rows,
                "mistakes": [_entry(chosen, each.target, splits, small_images) for chosen in each.mistakes],
                "hits": [_entry(chosen, each.target, splits, small_images) for chosen in each.hits],
            }
            for each in classes
        ],
    }


def chosen_classes(
    predictor: Predictor, splits: DatasetSplits, outputs: Mapping[str, Tensor], most: int
) -> list[ChosenClass]:
    """The rarer half of each target's classes, four of all targets together, each with up to `most` mistakes and as
    many hits; those without any are left out."""
    if not most:
        return []
    counts = label_counts(splits, splits.train)
    names = [name for name, head in predictor.heads.items() if head.type in EXPLAINED_TYPES][:MOST_CLASSES]
    found = []
    for name in names:
        labels, head = predictor.labels[name], predictor.heads[name]
        share = min(-(-len(labels) // 2), MOST_CLASSES // len(names))
        rarest = sorted(range(len(labels)), key=lambda k: (counts[name][k], k))[:share]
        decoded = head.decode(outputs[name]).double()
        judged = _judged(head, decoded, splits.valid.labels[name], labels, rarest)
        for k in rarest:
            mistakes, hits = _most_certain(judged, k, most)
            if mistakes or hits:
                found.append(ChosenClass(name, labels[k], counts[name][k], mistakes, hits))
    return found


@dataclass(frozen=True)
class _Judged:
    """One answer about one class: the row's number, `about` which classes it is a hit or a mistake, and whether it is
    right."""

    chosen: ChosenRow
    about: tuple[int, ...]
    is_right: bool


def _judged(
    head: Head, decoded: Tensor, truth: np.ndarray, labels: Sequence[str], wanted: Sequence[int]
) -> list[_Judged]:
    """The answers about the `wanted` classes whose truth is known; of several labels, one for each that is there or
    predicted."""
    if head.type == "multilabel":
        return _judged_labels(head, decoded, truth, labels, wanted)
    said_N = head.predicted(decoded).numpy()
    is_known_N = (truth >= 0) & (said_N >= 0)
    rows = np.flatnonzero(is_known_N & (np.isin(truth, wanted) | np.isin(said_N, wanted)))
    p_RK = probabilities(decoded[torch.from_numpy(rows)], head.type).numpy()
    return [
        _Judged(
            ChosenRow(row, labels[true], labels[said], float(p_K[said]), explained=said),
            about=(true, said),
            is_right=true == said,
        )
        for row, true, said, p_K in zip(
            rows.tolist(), truth[rows].tolist(), said_N[rows].tolist(), p_RK, strict=True
        )
    ]


def _judged_labels(
    head: Head, decoded: Tensor, truth: np.ndarray, labels: Sequence[str], wanted: Sequence[int]
) -> list[_Judged]:
    said_NL = chosen_labels(head, decoded).numpy()
    p_NL = probabilities(decoded, head.type).numpy()
    is_wanted_L = np.isin(np.arange(len(labels)), wanted)
    rows, numbers = np.nonzero((said_NL | (truth == 1)) & ~np.isnan(truth) & is_wanted_L)
    found = []
    for row, k in zip(rows.tolist(), numbers.tolist(), strict=True):
        true, said = (
            f"{'' if is_there else 'not '}{labels[k]}" for is_there in (truth[row, k] == 1, said_NL[row, k])
        )
        p = float(p_NL[row, k])
        chosen = ChosenRow(row, true, said, p if said_NL[row, k] else 1 - p, explained=k)
        found.append(_Judged(chosen, (k,), true == said))
    return found


def _most_certain(judged: Sequence[_Judged], k: int, most: int) -> tuple[list[ChosenRow], list[ChosenRow]]:
    """The mistakes and the hits about class number k, the most probable first."""
    about = sorted((each for each in judged if k in each.about), key=lambda each: -each.chosen.probability)
    mistakes = [each.chosen for each in about if not each.is_right]
    return mistakes[:most], [each.chosen for each in about if each.is_right][:most]


def _small_images(
    model: ExplainedModel, method: str, dataset: ImageDataset, classes: Sequence[ChosenClass]
) -> dict[tuple[str, int, int], tuple[str, str]]:
    """The image and the heat map over it, as data URIs, by target, row and explained class."""
    wanted = {
        (each.target, chosen.row, chosen.explained): None
        for each in classes
        for chosen in (*each.mistakes, *each.hits)
    }
    found = {}
    for target in dict.fromkeys(target for target, _, _ in wanted):
        keys = [key for key in wanted if key[0] == target]
        for start in range(0, len(keys), AT_ONCE):
            part = keys[start : start + AT_ONCE]
            images_BCHW = stacked(dataset, [row for _, row, _ in part])
            maps_BHW = model.maps(images_BCHW, {target: torch.tensor([k for _, _, k in part])}, method)
            images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
            for key, image_HWC, map_HW in zip(part, images_BHWC, maps_BHW.numpy(), strict=True):
                shown = enlarged(image_HWC, READABLE_SIDE), overlay(image_HWC, map_HW, READABLE_SIDE)
                image, heat_map = (encode(shown_HWC, LONGEST_SIDE).uri for shown_HWC in shown)
                found[key] = image, heat_map
    return found


def _entry(
    chosen: ChosenRow,
    target: str,
    splits: DatasetSplits,
    small_images: Mapping[tuple[str, int, int], tuple[str, str]],
) -> dict[str, Any]:
    image, heat_map = small_images[(target, chosen.row, chosen.explained)]
    return {
        # A file name that is not UTF-8 is read as lone surrogates, which cannot be encoded.
        "id": splits.valid.samples.ids[chosen.row].encode("utf-8", errors="replace").decode(),
        "true": chosen.true,
        "predicted": chosen.predicted,
        "probability": round(chosen.probability, 6),
        "image": image,
        "map": heat_map,
    }


def explained_model(predictor: Predictor) -> ExplainedModel:
    """The predictor's model or models, each with a single view of an image."""
    members = predictor.members or (predictor,)
    return ExplainedModel.of(
        models=[member.model for member in members],
        heads=[undecoded(member.heads) for member in members],
        answers=as_decoded(predictor.heads),
        ensemble=predictor.ensemble,
    )


def stacked(dataset: ImageDataset, rows: Sequence[int]) -> Tensor:
    """images_BCHW (uint8) of these rows, as the model sees them. Raises ImageError."""
    images = [dataset.transform(dataset.read(row), 0, row)[0] for row in rows]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
