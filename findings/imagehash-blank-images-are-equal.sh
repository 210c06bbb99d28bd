#!/usr/bin/env bash
# imagehash: a black and a white image have the same average, difference and wavelet hash.
#
# One would guess that the two are as different as images can be. What happens: these hashes compare pixels with the image's
# own mean or with their neighbours, and a blank image has nothing above its mean: all bits are 0 for any colour (one bit of 64
# differs for the perceptual hash). A search for near duplicates reports all blank, over-exposed and unexposed frames of a
# camera as copies of each other, whatever their labels.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check imagehash==4.3.2 pillow==13.0.0 numpy scipy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import imagehash
from PIL import Image

print("imagehash", version("imagehash"))
black = Image.new("RGB", (64, 64), (0, 0, 0))
white = Image.new("RGB", (64, 64), (255, 255, 255))
distances = {}
for name in ("average_hash", "dhash", "whash", "phash"):
    hash_of = getattr(imagehash, name)
    distances[name] = int(hash_of(black) - hash_of(white))
    print(f"{name}: {distances[name]} of 64 bits differ between a black and a white image")
assert distances == {"average_hash": 0, "dhash": 0, "whash": 0, "phash": 1}, distances
PY
