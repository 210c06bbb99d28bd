#!/usr/bin/env bash
# Hugging Face datasets: casting labels to another data set's class list keeps the numbers, so that every cat becomes a fox.
#
# Two sets of the same classes in another order cannot be concatenated: 'features can't be aligned'. The step that comes to
# mind is a cast to the other one's features. One would guess that a cast from one list of names to another goes by name, as
# the cast of a column of strings does, or that it refuses. What happens: the numbers stay and get the names of the new list.
# Concatenation is content, and the labels of one half are permuted. Nothing is checked either: a list that lacks a class is
# taken, and the number beyond its end fails only when something asks for its name. align_labels_with_mapping goes by name.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import datasets
from datasets import ClassLabel, Dataset, Features

datasets.disable_progress_bars()
print("datasets", datasets.__version__)
animals = ["cat", "dog", "fox", "cat"]
first = Dataset.from_dict({"label": animals}).cast_column("label", ClassLabel(names=["cat", "dog", "fox"]))
second = Dataset.from_dict({"label": animals}).cast_column("label", ClassLabel(names=["fox", "dog", "cat"]))


def named(rows):
    return [rows.features["label"].int2str(label) for label in rows["label"]]


print("from strings:", named(first), named(second))
assert named(first) == named(second) == animals
try:
    datasets.concatenate_datasets([first, second])
    raise AssertionError("concatenated")
except ValueError as error:
    print("concatenate:", str(error)[:35], "...")

for cast in (second.cast(first.features), second.cast_column("label", first.features["label"])):
    both = datasets.concatenate_datasets([first, cast])
    print("after a cast:", named(both))
    assert named(both) == animals + ["fox", "dog", "cat", "fox"]
aligned = second.align_labels_with_mapping({"cat": 0, "dog": 1, "fox": 2}, "label")
print("align_labels_with_mapping:", named(datasets.concatenate_datasets([first, aligned])))
assert named(datasets.concatenate_datasets([first, aligned])) == animals * 2

shorter = first.cast(Features({"label": ClassLabel(names=["cat", "dog"])}))
print("cast to two classes:", shorter["label"][:], "of", shorter.features["label"].num_classes)
assert max(shorter["label"]) == 2 and shorter.features["label"].num_classes == 2
PY
