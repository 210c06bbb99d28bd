"""Usual names of columns, tables and folders in data sets of images."""

import re
from collections.abc import Sequence

# Columns, in the order in which they are tried; see `normal`.
PATH_NAMES = (
    "path", "image_path", "img_path", "filepath", "file_path", "filepaths", "file", "filename", "file_name",
    "image_filename", "image_file", "image", "image_name", "img_name", "img", "images", "picture", "photo", "fname",
    "name", "relative_file_path", "url",
)  # fmt: skip
ID_NAMES = ("id", "image_id", "imageid", "img_id", "id_code", "isic_id", "uuid", "key", "file_id", "photo_id")
GROUP_NAMES = (
    "group", "person", "person_id", "patient", "patient_id", "subject", "subject_id", "user", "user_id",
    "individual", "identity", "family", "video", "video_id", "scene", "session", "location", "site", "slide",
    "slide_id", "specimen", "lesion_id", "study_id", "exam_id", "seq_id", "sequence_id", "case_id", "photographer",
    "photographer_id", "observer", "observer_id", "camera_id",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "classes", "target", "targets", "category", "y", "answer", "species", "diagnosis",
    "dx", "breed", "disease", "class_name", "classname", "label_name", "class_id", "classid", "label_id", "category_id",
    "species_id", "class_label", "finding_labels", "finding", "attribute_ids", "variety", "cultivar",
)  # fmt: skip
NUMBER_NAMES = (
    "age", "weight", "height", "width", "length", "price", "count", "area", "year", "temperature", "angle", "score",
    "rating", "boneage", "size", "distance", "depth", "pawpularity", "bmi", "value", "x", "y", "time", "duration",
)  # fmt: skip
SPLIT_NAMES = (
    "split", "subset", "set", "partition", "data_set", "dataset", "usage", "phase", "dataset_split", "split_name",
    "train_test", "train_val_test", "mode", "evaluation_status", "fold_name",
)  # fmt: skip
FOLD_NAMES = ("fold", "folds", "kfold", "k_fold", "fold_id", "cv_fold", "fold_number")
FLAG_SPLITS = {
    "valid": ("is_valid", "is_val", "is_validation", "valid", "val", "validation", "in_val"),
    "test": ("is_test", "test", "in_test", "holdout"),
    "train": ("is_train", "is_training", "train", "training", "is_training_image", "in_train"),
}
"""Columns of yes and no, by the part of a split that yes means."""
QUERY_NAMES = ("query", "query_id", "qid")

# Tables of a folder.
TRAINING_TABLES = ("train", "samples", "labels", "data", "metadata", "training", "annotations", "dataset")
SUBMISSION = ("submission",)
"""Tables with one of these words in their name are templates, not data."""


def normal(name: str) -> str:
    """A name of a column or a file in lower case, with one underscore for whatever separates its words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^\w]+|_+", "_", spaced.casefold()).strip("_")


def words(name: str) -> list[str]:
    """The words of a name: trainImages_1 is train, images and 1."""
    return [word for word in re.split(r"_|(?<=[a-z])(?=\d)", normal(name)) if word]


def columns_named(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns with one of these names, in the order of the names."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(normal(column), column)
        by_name.setdefault(normal(column).replace("_", ""), column)
    return list(dict.fromkeys(by_name[name] for name in names if name in by_name))
