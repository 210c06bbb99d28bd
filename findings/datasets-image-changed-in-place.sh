#!/usr/bin/env bash
# Hugging Face datasets: what Pillow does to an image in place is not stored, if the image came from a file: a blacked-out name
# is legible again, a thumbnail has its full size.
#
# One would guess that map, or a generator, stores the pixels of the image that it is handed. What happens: an image which still
# knows its file (`filename`) is stored as the path of that file. Whatever makes a new image (resize, convert, copy) is stored
# as pixels; what works in place (thumbnail, paste, putpixel, everything of ImageDraw) keeps `filename`, and is lost without a
# word. The same map over the same images, kept as bytes, stores the change, so a test on such rows passes. What is published
# afterwards has the names, faces or frames that were painted over.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy

cd "$folder"
HF_HOME="$folder/cache" "$folder/env/bin/python" -W ignore - <<'PY'
from pathlib import Path

import datasets
import numpy as np
import PIL
from datasets import Dataset, Features
from PIL import Image, ImageDraw

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "Pillow", PIL.__version__)
Image.new("L", (64, 64), 255).save("scan.png")
features = Features({"image": datasets.Image()})
by_path = Dataset.from_dict({"image": ["scan.png"]}, features=features)
by_bytes = Dataset.from_dict({"image": [{"bytes": Path("scan.png").read_bytes(), "path": None}]}, features=features)


def black_out(row):
    ImageDraw.Draw(row["image"]).rectangle((0, 0, 63, 20), fill=0)
    return {"image": row["image"]}


def black_out_copy(row):
    return black_out({"image": row["image"].copy()})


def shrink(row):
    row["image"].thumbnail((16, 16))
    return {"image": row["image"]}


def scans():
    with Image.open("scan.png") as scan:
        yield black_out({"image": scan})


def black(rows):
    return float(np.mean(np.array(rows[0]["image"]) == 0))


results = {}
for name, rows in {"by path": by_path, "as bytes": by_bytes}.items():
    results[name] = black(rows.map(black_out)), black(rows.map(black_out_copy)), rows.map(shrink)[0]["image"].size
    drawn, copied, size = results[name]
    print(f"{name}: black after drawing {drawn:.0%}, on a copy {copied:.0%}; size of the thumbnail {size}")
generated = Dataset.from_generator(scans, features=features)
print(f"from a generator that draws: {black(generated):.0%} black")
assert results["by path"] == (0, 21 / 64, (64, 64))
assert results["as bytes"] == (21 / 64, 21 / 64, (16, 16))
assert black(generated) == 0
PY
