#!/usr/bin/env bash
# Hugging Face datasets: a map that only looks at an image stores the JPEG anew at quality 75, and so does the next map.
#
# One would guess that an image which nobody changed keeps its bytes, above all where the function returns another column only:
# {"width": row["image"].width}. What happens: to read row["image"] puts a decoded image into the row, the row goes into the new
# data set, and a decoded image is encoded again, in its own format with Pillow's default quality. A filter that looks at the
# image leaves the bytes alone, a map does not. PNG loses nothing and images stored by their path are spared, so it shows only
# for JPEGs in Parquet shards, which is how they are published: noting their widths can halve a data set's size, blurs what
# a model is trained on, and the rows are no longer found by the hash of a file.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy

cd "$folder"
HF_HOME="$folder/cache" "$folder/env/bin/python" -W ignore - <<'PY'
import io

import datasets
import numpy as np
import PIL
from datasets import Dataset, Features
from PIL import Image

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "Pillow", PIL.__version__)
noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
picture = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)


def stored(rows):
    return rows.with_format("arrow")[0]["image"][0].as_py()["bytes"]


def pixels(data):
    return np.array(Image.open(io.BytesIO(data))).astype(int)


def only_width(row):
    return {"width": row["image"].width}


for suffix in ("PNG", "JPEG"):
    file = io.BytesIO()
    picture.save(file, suffix, **({"quality": 97} if suffix == "JPEG" else {}))
    original = file.getvalue()
    features = Features({"image": datasets.Image()})
    rows = Dataset.from_dict({"image": [{"bytes": original, "path": None}]}, features=features)
    results = {
        "a map that looks at nothing": rows.map(lambda row: {"grade": 1}),
        "a filter that looks at the image": rows.filter(lambda row: row["image"].width > 1),
        "a map that looks at the image": rows.map(only_width),
        "two such maps": rows.map(only_width).map(lambda row: {"height": row["image"].height}),
    }
    for name, result in results.items():
        data = stored(result)
        change = np.abs(pixels(data) - pixels(original)).mean()
        print(f"{suffix}, {name}: {len(original)} bytes -> {len(data)}, mean change of a pixel {change:.2f}")
        if suffix == "PNG":
            assert change == 0
        elif name in ("a map that looks at the image", "two such maps"):
            assert len(data) < len(original) / 2 and change > 0.5
            assert Image.open(io.BytesIO(data)).format == "JPEG"
        else:
            assert data == original
PY
