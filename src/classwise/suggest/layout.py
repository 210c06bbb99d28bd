"""What the folders of a source were found to mean, and the parts of a split that folders and tables are named as."""

from collections import Counter
from dataclasses import dataclass, field

from classwise.data.split_column import part_of_word
from classwise.suggest.names import words

PARTS = {"train": "training", "valid": "validation", "test": "the test"}


@dataclass(frozen=True)
class Layout:
    """The images with a label. Rows: (path, label, folder), the last one the part of a split, domain, group or fold, or
    empty.

    folder_means: split, fold, group, domain or nothing. decisions: (key, choice, reason, what to write instead). said:
    what was left out.
    """

    rows: list[tuple[str, str, str]]
    folder_means: str = ""
    decisions: list[tuple[str, str, str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def part_of_folder(name: str) -> str | None:
    """The part of a split that a folder or a table is named as: train, seg_train, val_images, TestSet; None if it is
    none or several."""
    whole = part_of_word(name)
    if whole is not None:
        return whole
    parts = {part for part in map(part_of_word, words(name)) if part is not None}
    return parts.pop() if len(parts) == 1 else None


def split_decision(rows: list[tuple[str, str, str]], folders: list[str]) -> tuple[str, str, str, str]:
    """The decision that folders are the parts of a split, with the number of images of each."""
    counts = Counter(part for _, _, part in rows)
    given = ", ".join(f"{counts[part]} images for {what}" for part, what in PARTS.items() if counts[part])
    drawn = "" if counts["valid"] else "; validation images are drawn from those for training"
    named = f"folder {folders[0]} is" if len(folders) == 1 else f"folders {', '.join(folders)} are"
    return (
        "data.split",
        f"split: {given}{drawn}",
        f"the {named} named as {'a part' if len(folders) == 1 else 'parts'} of a split",
        "name the folder with the class folders instead",
    )
