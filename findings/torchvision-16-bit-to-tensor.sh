#!/usr/bin/env bash
# torchvision's ToTensor turns the bright half of a 16-bit grey image into negative numbers; PILToTensor does not.
#
# One would guess floats from 0 to 1, as the documentation of ToTensor says for 8 bits, or the values themselves. What happens: an
# image of mode I;16 becomes an int16 tensor, unscaled, in which 40000 is -25536: white is darker than black. pil_to_tensor and
# v2's to_image give the same image as uint16, so two functions of one library disagree by sign.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 numpy pillow==13.0.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional

print("torchvision", torchvision.__version__)
image = Image.fromarray(np.array([[0, 100, 40000, 65535]], dtype=np.uint16))
to_tensor = functional.to_tensor(image)
pil_to_tensor = functional.pil_to_tensor(image)
print("to_tensor:", to_tensor.dtype, to_tensor.flatten().tolist())
print("pil_to_tensor:", pil_to_tensor.dtype, pil_to_tensor.flatten().tolist())
assert to_tensor.dtype == torch.int16
assert to_tensor.flatten().tolist() == [0, 100, -25536, -1]
assert pil_to_tensor.flatten().tolist() == [0, 100, 40000, 65535]
PY
