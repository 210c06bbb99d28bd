#!/usr/bin/env bash
# timm's folder reader names a class by the last folder alone: cats/left and dogs/left are one class.
#
# One would guess that the class is the first folder below the root (torchvision: cats, dogs), or the whole path below it (four
# classes). What happens: images of cats/left and dogs/left are merged into the class `left`, without a word. Data sets that
# sort images by site, camera or day within their classes are trained on the site.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 timm==1.0.31 numpy pillow==13.0.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
from pathlib import Path

import numpy as np
import timm
from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder

print("timm", timm.__version__)
rng = np.random.default_rng(0)
for folder in ("cats/left", "cats/right", "dogs/left", "dogs/right"):
    path = Path("images", folder)
    path.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path / f"{number}.png")
by_timm = create_dataset("", root="images")
print("timm:", len(by_timm), "images of", sorted(by_timm.reader.class_to_idx))
print("torchvision:", ImageFolder("images").classes)
assert sorted(by_timm.reader.class_to_idx) == ["left", "right"]
assert len(by_timm) == 8
assert ImageFolder("images").classes == ["cats", "dogs"]
PY
