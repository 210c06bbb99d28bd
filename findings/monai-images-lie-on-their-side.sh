#!/usr/bin/env bash
# MONAI's LoadImage returns a photograph as (width, height, channels).
#
# One would guess (height, width, channels), as every other reader of PNG and JPEG, or (channels, height, width). What happens: its
# PIL reader swaps the first two axes (reverse_indexing), to be like its readers of volumes. Images arrive transposed: boxes,
# flips ('horizontal' is vertical), image sizes and weights pretrained on upright images all meet the other axis.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 monai==1.6.1 numpy pillow==13.0.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import monai
import numpy as np
from monai.transforms import LoadImage
from PIL import Image

print("monai", monai.__version__)
Image.fromarray(np.zeros((10, 20, 3), dtype=np.uint8)).save("wide.png")
shape = tuple(LoadImage(image_only=True)("wide.png").shape)
print("an image 20 wide and 10 high has the shape", shape)
assert shape == (20, 10, 3)
PY
