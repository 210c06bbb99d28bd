#!/usr/bin/env bash
# Hugging Face datasets: class_encode_column renumbers labels that are numbers already, in the order of their text: with twelve
# classes, 2 becomes 4 and 10 becomes 2.
#
# A stratified split refuses a column of integers ('only supported for ClassLabel column'), and class_encode_column is the
# method that makes a ClassLabel of a column. One would guess that for numbers from 0 to 11 it leaves every number as it is and
# adds the names "0" to "11". What happens: the numbers become text, the text is sorted ('0', '1', '10', '11', '2', ...), and a
# label is its place there. Up to ten classes nothing changes, so a test on ten digits passes. From eleven on, labels no longer
# mean what the class list, the pretrained head or the other files of the set mean by them: of 1,000 classes, 12 keep theirs.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import datasets
import numpy as np

datasets.disable_progress_bars()
print("datasets", datasets.__version__)
for count in (10, 12, 1000):
    rows = datasets.Dataset.from_dict({"label": list(range(count)) * 4})
    try:
        rows.train_test_split(test_size=count, stratify_by_column="label", seed=0)
    except ValueError as error:
        message = str(error)
    encoded = rows.class_encode_column("label")
    same = np.mean(np.array(encoded["label"]) == np.array(rows["label"]))
    print(f"{count} classes: {same:.1%} of the labels as before; the first twelve are {encoded['label'][:12]}")
    encoded.train_test_split(test_size=count, stratify_by_column="label", seed=0)
    assert (same == 1) == (count == 10)
    if count == 12:
        assert encoded["label"][:12] == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]
        assert abs(same - 1 / 6) < 1e-9
    if count == 1000:
        assert round(same * count) == 12
print("without it:", message)

# A cast to a ClassLabel with the names in order is what keeps the numbers.
rows = datasets.Dataset.from_dict({"label": list(range(12)) * 4})
cast = rows.cast_column("label", datasets.ClassLabel(names=[str(label) for label in range(12)]))
cast.train_test_split(test_size=12, stratify_by_column="label", seed=0)
assert cast["label"][:] == rows["label"][:]
PY
