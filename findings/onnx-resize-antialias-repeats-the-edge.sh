#!/usr/bin/env bash
# ONNX's Resize with antialias = 1 is not the antialiased resize of Pillow and torch: its borders count the edge several times.
#
# One would guess that a graph which makes an image smaller with Resize, antialias = 1 and half_pixel coordinates, gives what
# Pillow's BILINEAR and BICUBIC and torch's interpolate(antialias=True) give, up to rounding: the attribute is documented by them.
# What happens: the filter reaches over the edge of the image, and where Pillow and torch leave out what lies outside and let the
# rest of the weights add up to 1, Resize by default takes the edge pixel again for each place outside. On noise the pixels at the border are
# off by some 10 of 255 levels, those inside by nothing, so that a comparison of labels, or of a crop, does not show it. With
# exclude_outside = 1 bilinear is right everywhere, making larger images too. Bicubic needs a second attribute: cubic_coeff_a is
# -0.75 by default, while Pillow's and torch's antialiased bicubic has -0.5; without it all pixels are off. torch's exporter sets both.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.4.6 onnx==1.20.0 onnxruntime==1.32.0 pillow==13.0.0

cd "$folder"
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
import PIL
from onnx import TensorProto, helper
from PIL import Image

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "Pillow", PIL.__version__)
HEIGHT, WIDTH = 50, 70


def resized(image_HW, **attributes):
    """The image at HEIGHT x WIDTH by a graph of one Resize node."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, None, None])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 1, HEIGHT, WIDTH])
    size = helper.make_tensor("size", TensorProto.INT64, [4], [1, 1, HEIGHT, WIDTH])
    node = helper.make_node("Resize", ["image", "", "", "size"], ["result"], antialias=1, **attributes)
    graph = helper.make_graph([node], "graph", [image], [result], [size])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image_HW[None, None]})[0][0, 0]


image_HW = np.random.default_rng(0).uniform(0, 255, (233, 311)).astype(np.float32)
CASES = [  # mode, attributes, whether the inside and whether the border are those of Pillow
    ("linear", {}, True, False),
    ("linear", {"exclude_outside": 1}, True, True),
    ("cubic", {}, False, False),
    ("cubic", {"exclude_outside": 1}, False, False),
    ("cubic", {"cubic_coeff_a": -0.5}, True, False),
    ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1}, True, True),
]
RESAMPLE = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
for mode, attributes, right_inside, right_at_border in CASES:
    wanted_HW = np.asarray(Image.fromarray(image_HW).resize((WIDTH, HEIGHT), RESAMPLE[mode]))  # mode F: no rounding
    difference_HW = np.abs(resized(image_HW, mode=mode, **attributes) - wanted_HW)
    everywhere, inside = difference_HW.max(), difference_HW[3:-3, 3:-3].max()
    print(f"{mode:6} {attributes!s:46} off by at most {everywhere:.4f} levels, {inside:.4f} inside")
    assert (inside < 0.01) == right_inside
    assert (everywhere < 0.01) == right_at_border
    assert right_at_border or everywhere > 4
PY
