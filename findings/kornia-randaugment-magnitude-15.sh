#!/usr/bin/env bash
# kornia's RandAugment: a magnitude of 15 of 30 leaves four of its operations without effect, one of 1 turns the image black.
#
# One would guess that a low magnitude is a mild augmentation and that each step makes it stronger, in either direction, as in
# torchvision and timm. What happens: the magnitude runs along the whole range of an operation, from 0.1 to 1.9 for brightness,
# contrast, colour and sharpness, where 1 is 'no change'. Brightness at 1 of 30 is a black image, at 8 always darker and never
# lighter, at 15 the image itself and at 29 a white one. Solarizing runs backwards as well: at 1 nearly the whole image is
# inverted, at 29 nothing is. A search for the best magnitude finds a dip in the middle, and one of 9 of 30, torchvision's
# default, means darkened, flat images here. With geometry alone, rotation for one, the magnitude is what one takes it for.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 kornia==0.9.0 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import kornia
import torch
import torch.nn.functional as F
from kornia.augmentation.auto import RandAugment
from kornia.augmentation.auto.rand_augment.rand_augment import default_policy

print("kornia", kornia.__version__)
torch.manual_seed(0)
images = F.interpolate(torch.rand(8, 3, 6, 6), 32, mode="bilinear")
print(f"mean of the images: {images.mean():.3f}; the mean change (and the mean after it) by magnitude:")
magnitudes = 1, 8, 15, 22, 29
changes, means = {}, {}
for policy in default_policy:
    ((name, low, high),) = policy
    if name in ("brightness", "contrast", "color", "sharpness", "solarize", "rotate"):
        augmented = [RandAugment(n=1, m=magnitude, policy=[policy])(images) for magnitude in magnitudes]
        changes[name] = [float((some - images).abs().mean()) for some in augmented]
        means[name] = [float(some.mean()) for some in augmented]
        row = "   ".join(f"{c:.3f} ({m:.2f})" for c, m in zip(changes[name], means[name]))
        print(f"{name + f' {low:g} to {high:g}':22} {row}")
print(f"{'':22} " + "   ".join(f"at {magnitude:<9}" for magnitude in magnitudes))

for name in ("brightness", "contrast", "color", "sharpness"):
    first, second, middle, fourth, last = changes[name]
    assert middle < 1e-5 < second < first and middle < fourth < last
assert means["brightness"][0] < 0.02 and means["brightness"][4] > 0.98
assert means["brightness"][1] < float(images.mean()) - 0.2
assert changes["solarize"][0] > 0.2 and changes["solarize"][4] < 0.01
assert changes["rotate"] == sorted(changes["rotate"])
PY
