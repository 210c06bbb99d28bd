#!/usr/bin/env bash
# Hugging Face datasets: a class folder named test_tube turns the whole image folder into a test split and drops the rest.
#
# One would guess two classes, `beaker` and `test_tube`, in one split `train`. What happens: the words test, testing, eval, dev,
# valid (...) between separators in any path below the folder are read as names of splits. One such name is enough for the
# files of all other folders to be left out, without a word, and since one class folder remains there are no labels at all.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path("cache").resolve())

import datasets
from PIL import Image

datasets.disable_progress_bars()
print("datasets", datasets.__version__)


def splits(*classes):
    root = Path("-".join(classes), "images")
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name / f"{number}.png")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(root))
    found = {name: (len(part), "label" in part.features) for name, part in loaded.items()}
    print(f"folders {', '.join(classes)}: (images, labeled) by split: {found}")
    return found


assert splits("beaker", "flask") == {"train": (6, True)}
assert splits("beaker", "test_tube") == {"test": (3, False)}
PY
