#!/usr/bin/env bash
# timm marks a model as of a fixed input size (`fixed_input_size` of its pretrained config) that takes images of any size, and
# stops doing so once it is built for one; and one of another family that can be built for a single size refuses a rectangle.
#
# One would guess that the flag means what it means for a vision transformer: the model as it is takes its own size only, and
# `img_size=(height, width)` builds it for another one.
# What happens: CrossViT as it is takes every size (it scales its input to the size of its branches). With `img_size` it is
# built without an error, and then fails for most inputs, also of the size that it was built for: it makes one position for
# each of height // patch * width // patch, computed from left to right, which are too many where a branch's size is no
# multiple of its patches. MViTv2 as it is takes every size as well, but with `img_size=(96, 128)` an assertion without a
# message ends the construction: only squares can be asked for.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torch==2.15.0 torchvision

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import timm
import torch

print("timm", timm.__version__, "torch", torch.__version__)
SIZE = (96, 128)


def outcome(name, size, **options):
    try:
        model = timm.create_model(name, num_classes=0, **options).eval()
    except Exception as error:
        return f"cannot be built: {type(error).__name__} {str(error)!r}"
    try:
        with torch.no_grad():
            return f"{tuple(model(torch.zeros(1, 3, *size)).shape)}"
    except Exception as error:
        return f"fails: {type(error).__name__}"


for name in ("vit_tiny_patch16_224", "crossvit_9_240", "mvitv2_tiny"):
    flag = timm.get_pretrained_cfg(name).fixed_input_size
    print(f"{name}: fixed_input_size {flag}")
    as_it_is, built = outcome(name, SIZE), outcome(name, SIZE, img_size=SIZE)
    print(f"  as it is: {as_it_is}; with img_size={SIZE}: {built}")
    assert flag
    if name.startswith("vit"):
        assert as_it_is.startswith("fails") and built == "(1, 192)"
    elif name.startswith("crossvit"):
        assert as_it_is == "(1, 384)" and built.startswith("fails")
        square = outcome(name, (128, 128), img_size=128)
        print(f"  with img_size=128 and images of 128 x 128: {square}")
        assert square.startswith("fails")
    else:
        assert as_it_is == "(1, 768)" and built == "cannot be built: AssertionError ''"
PY
