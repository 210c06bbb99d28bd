"""Files in class folders that are not named as images: said by suffix and by class, refused where images would go
missing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from classwise.data.image_file import KINDS, is_image_content
from classwise.errors import DataError

OTHER_IMAGES = (
    ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".jxr", ".psd", ".psb", ".svg", ".svgz", ".dcm", ".dicom", ".raw", ".cr2",
    ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".npy", ".npz", ".mat", ".fits", ".fit", ".nii", ".nii.gz",
    ".nrrd", ".mha", ".exr", ".hdr", ".tga", ".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".eps", ".xcf", ".czi",
    ".lif", ".nd2", ".svs", ".ndpi", ".vsi", ".h5",
)  # fmt: skip
"""Suffixes of images, and of arrays that often are images, that are not read."""
PARTS = ("train", "training", "valid", "val", "validation", "dev", "test", "testing")
"""Names of folders that hold class folders."""
MOST_SHARE = 0.01
"""Of the images of a folder that may be left out without being asked for."""
_LISTED = 8


def left_out_notes(
    folder: Path, others: Sequence[str], images: Iterable[str], skip: bool = False
) -> list[str]:
    """Notes on the files below a folder that are not named as images, `others`; `images` are those that are, all
    relative to the folder. Files whose name or content says that they are images count as lost.

    Raises DataError if all images of a class are lost or, unless `skip`, more than MOST_SHARE of all.
    """
    hidden = [name for name in others if Path(name).name.startswith(".")]
    visible = [name for name in others if not Path(name).name.startswith(".")]
    # What lies beside the class folders is of no class: an array there may hold the labels.
    lost = [name for name in visible if "/" in name and _is_image(folder, name)]
    lost_by_class = Counter(_class_of(name) for name in lost)
    kept_by_class = Counter(_class_of(name) for name in images)

    lost_classes = sorted(label for label in lost_by_class if label not in kept_by_class)
    too_many = len(lost) > MOST_SHARE * (kept_by_class.total() + len(lost))
    if lost_classes or (too_many and not skip):
        raise DataError(_lost_text(folder, lost, lost_by_class, kept_by_class, lost_classes))

    # What is no image, and folders that have none, which might have been meant as classes.
    notes = []
    if visible:
        places = _counts_text(Counter(_class_of(name) for name in visible), "in {}")
        suffixes = _counts_text(Counter(map(_suffix, visible)), "{}")
        notes.append(
            f"{folder}: left out {len(visible)} file{'' if len(visible) == 1 else 's'} not named as images: {suffixes}"
            f" ({places})"
        )
    if hidden:
        notes.append(f"{folder}: left out {len(hidden)} hidden file{'' if len(hidden) == 1 else 's'}")
    without = sorted({_class_of(name) for name in visible if "/" in name} - set(kept_by_class) - set(PARTS))
    if without:
        listed = ", ".join(map(repr, without[:_LISTED])) + (", ..." if len(without) > _LISTED else "")
        notes.append(f"{folder}: no class for {listed}, without any image")
    return notes


def not_predicted_notes(folder: Path, others: Sequence[str]) -> list[str]:
    """A note on the files below a folder to be predicted that are not named as images, `others`, relative to the
    folder; hidden ones are not counted. Those that are images all the same are told apart."""
    visible = [name for name in others if not Path(name).name.startswith(".")]
    if not visible:
        return []
    suffixes = _counts_text(Counter(map(_suffix, visible)), "{}")
    are = "file is not named as an image" if len(visible) == 1 else "files are not named as images"
    text = f"{folder}: {len(visible)} {are} and not predicted ({suffixes})"
    lost = [name for name in visible if _is_image(folder, name)]
    if lost:
        text += (
            f"; images all the same are {len(lost)} of them, such as {lost[0]}: name them as what they are"
        )
    return [text]


def _lost_text(
    folder: Path,
    lost: Sequence[str],
    lost_by_class: Counter[str],
    kept_by_class: Counter[str],
    lost_classes: Sequence[str],
) -> str:
    """What would go missing, and what to do."""
    total = len(lost) + kept_by_class.total()
    classes = ", ".join(
        f"{count} of {count + kept_by_class[label]} in {label!r}"
        for label, count in lost_by_class.most_common(_LISTED)
    )
    if lost_classes:
        listed = ", ".join(map(repr, lost_classes[:_LISTED]))
        what = f"class{'' if len(lost_classes) == 1 else 'es'} {listed} would be left out"
        advice = "convert them, or move them out of the folder"
    else:
        what = f"more than {MOST_SHARE:.0%} of the images would be left out"
        advice = 'convert them, move them out of the folder, or set data.bad_images = "skip"'
    suffixes = _counts_text(Counter(map(_suffix, lost)), "{}")
    return (
        f"{folder}: {what}: {len(lost)} of {total} images are of a kind, or have a name, that is not read: {suffixes}"
        f"{f' ({classes})' if classes else ''}; read are {', '.join(KINDS)}, by their usual suffixes."
        f" {advice[0].upper()}{advice[1:]}"
    )


def _is_image(folder: Path, name: str) -> bool:
    """Whether a file is an image all the same: by the suffix of a kind that is not read, or by its first bytes."""
    return name.lower().endswith(OTHER_IMAGES) or is_image_content(folder / name)


def _class_of(name: str) -> str:
    """The class folder of a path relative to the folder: the first, or the second where the first is a part of a split;
    `.` for a file in the folder itself."""
    folders = name.split("/")[:-1]
    if len(folders) > 1 and folders[0].lower() in PARTS:
        return "/".join(folders[:2])
    return folders[0] if folders else "."


def _suffix(name: str) -> str:
    return Path(name).suffix.lower() or "without suffix"


def _counts_text(counts: Counter[str], form: str) -> str:
    """`20 .xml, 2 .txt`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = [f"{count} {form.format(name)}" for name, count in ordered[:_LISTED]]
    return ", ".join(found) + (", ..." if len(counts) > _LISTED else "")


def bad_images_text(names: Iterable[str], labels: Iterable[str | None]) -> str:
    """How many of the rows that are left out have which suffix, and which label."""
    suffixes = Counter(_suffix(name) for name in names)
    by_label = Counter(repr(label) for label in labels if label is not None)
    return _counts_text(suffixes, "{}") + (f"; {_counts_text(by_label, 'of {}')}" if by_label else "")
