"""The page's section on augmentation: training images as the model sees them, from augmented.json."""

from dataclasses import dataclass

from classwise.report.names import short_number
from classwise.report.read import Json, RunFiles, count, listing, mapping, number
from classwise.report.thumbnails import file_names, kept_image, row_paths
from classwise.report.tiles import Group, Line, Tile

TITLES = {
    "augmented": ("Augmented", "Each changed at random, in every epoch anew."),
    "mixup": ("Mixup", "Two augmented images blended into one, and so are their labels."),
    "cutmix": (
        "CutMix",
        "A part of one augmented image in another one; the labels have the shares of the areas.",
    ),
}
OFF = {"crop": 1.0, "ratio": 1.0}
"""Parts of the augmentation whose value for no change is not 0."""


@dataclass(frozen=True)
class AugmentedSection:
    """All that the section shows. `recipe`: the parts of the augmentation that are on, as `flip 0.5`."""

    epoch: int
    size: str
    recipe: str
    of_fold: bool
    sheets: list[Group]


def augmented_section(run: RunFiles) -> AugmentedSection | None:
    """None where the run has kept no such images: it changes none, or is of an earlier version."""
    sheets = [_sheet(run, mapping(sheet)) for sheet in listing(run.augmented.get("sheets"))]
    sheets = [sheet for sheet in sheets if sheet.tiles]
    if not sheets:
        return None
    return AugmentedSection(
        epoch=count(run.augmented.get("epoch")),
        size=" × ".join(str(count(side)) for side in listing(run.augmented.get("size"))),
        recipe=_recipe(run),
        of_fold=run.is_folds,
        sheets=sheets,
    )


def _sheet(run: RunFiles, sheet: Json) -> Group:
    title, note = TITLES.get(str(sheet.get("kind")), ("", ""))
    images = [mapping(image) for image in listing(sheet.get("images"))]
    ids = [str(image.get("id")) for image in images]
    files = file_names({id_: id_ for id_ in ids} | row_paths(run.split, ids))
    tiles = [_tile(image, files[str(image.get("id"))]) for image in images]
    return Group(title, note, [tile for tile in tiles if tile.image.uri] if title else [])


def _tile(image: Json, file: str) -> Tile:
    lines = [Line(str(target), str(label)) for target, label in mapping(image.get("labels")).items() if label]
    return Tile(str(image.get("id")), file=file, lines=lines, image=kept_image(image.get("uri")))


def unchanged_images(run: RunFiles) -> str:
    """Why the model sees every image as it is, in words; empty where it does not."""
    if mapping(run.config.get("training")).get("plan") == "probe":
        return "The heads are fitted to features of the images as they are (training.plan = probe)"
    data = mapping(run.config.get("data"))
    given = data.get("augment")
    parts = mapping(given)
    is_mixed = any(number(data.get(name)) for name in ("mixup", "cutmix"))
    changes = [
        name for name, part in parts.items() if name != "preset" and number(part) != OFF.get(name, 0.0)
    ]
    preset = parts.get("preset") or given
    if preset == "none" and not changes and not is_mixed:
        return "The model sees the training images as they are (data.augment = none)"
    return ""


def _recipe(run: RunFiles) -> str:
    """`data.augment = light: flip 0.5, crop 0.8`, and mixing beside it."""
    data = mapping(run.config.get("data"))
    given = data.get("augment")
    parts = mapping(given)
    preset = str(parts.get("preset") or given or "")
    on = [
        f"{name.replace('_', ' ')} {short_number(value)}"
        for name, part in parts.items()
        if (value := number(part)) is not None and value != OFF.get(name, 0.0)
    ]
    texts = [f"data.augment = {preset}" + (f": {', '.join(on)}" if on else "")] if preset else []
    texts += [
        f"{name} {short_number(alpha)}" for name in ("mixup", "cutmix") if (alpha := number(data.get(name)))
    ]
    return "; ".join(texts)
