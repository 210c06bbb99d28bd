#!/usr/bin/env bash
# TIFF with PhotometricInterpretation WhiteIsZero: six ways to read it give negatives or positives by library, bit depth and flag.
#
# One would guess that every reader gives the same pixels, or at least that each library treats 8 and 16 bits alike. What
# happens: Pillow and OpenCV invert 8-bit images and leave 16-bit ones as stored, OpenCV inverts the 16-bit one too as soon as it is
# asked for grey, and tifffile (and so scikit-image and imageio) never inverts. Scanned film, gels and microscopes write such
# files; training with one reader and predicting with another shows the network negatives.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import cv2
import numpy as np
import PIL
import tifffile
from PIL import Image

print("Pillow", PIL.__version__, "OpenCV", cv2.__version__, "tifffile", tifffile.__version__)
found = {}
for bits, dtype in ((8, np.uint8), (16, np.uint16)):
    stored = np.linspace(0, 2**bits - 1, 16).astype(dtype).reshape(4, 4)
    name = f"{bits}.tif"
    tifffile.imwrite(name, stored, photometric="miniswhite")
    readers = {
        "Pillow": np.asarray(Image.open(name)),
        "OpenCV unchanged": cv2.imread(name, cv2.IMREAD_UNCHANGED),
        "OpenCV grey": cv2.imread(name, cv2.IMREAD_GRAYSCALE),
        "tifffile": tifffile.imread(name),
    }
    for reader, image in readers.items():
        inverted = bool(image[0, 0] > image[-1, -1])
        found[bits, reader] = inverted
        print(f"{bits} bits, {reader}: {image.dtype}, {'inverted' if inverted else 'as stored'}")
assert found == {
    (8, "Pillow"): True,
    (8, "OpenCV unchanged"): True,
    (8, "OpenCV grey"): True,
    (8, "tifffile"): False,
    (16, "Pillow"): False,
    (16, "OpenCV unchanged"): False,
    (16, "OpenCV grey"): True,
    (16, "tifffile"): False,
}, found
PY
