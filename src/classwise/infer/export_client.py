"""The answers of the model.onnx beside this file: python client.py IMAGE... prints a line of JSON for each.

Needs onnxruntime, numpy and Pillow. `answer(file)` gives the same from Python, a dict by target.
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).parent


@functools.cache
def labels() -> dict[str, Any]:
    """labels.json: what the outputs mean, and how files are to be decoded."""
    return dict(json.loads((HERE / "labels.json").read_text("utf-8")))


@functools.cache
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])


def read_image(file: Any) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a path or an open file, as the model was trained on it."""
    with Image.open(file) as opened:
        for key in ("xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
            opened.info.pop(key, None)  # in training, nothing but EXIF itself turns an image
        # At 1/2, 1/4 or 1/8 where that is large enough: faster, and as in training. Phones write JPEGs of several
        # images, which Pillow calls MPO.
        if opened.format in ("JPEG", "MPO"):
            is_turned = opened.getexif().get(0x0112, 1) >= 5
            least = labels()["min_size"][::-1] if is_turned else labels()["min_size"]
            sizes = [[-(-side // factor) for side in opened.size[::-1]] for factor in (2, 4, 8)]
            halvings = sum(height >= least[0] and width >= least[1] for height, width in sizes)
            opened.draft(None, (opened.width >> halvings, opened.height >> halvings))
        is_cut = any(";16" in str(tile[3]) for tile in opened.tile) and not opened.mode.startswith("I;16")
        if is_cut or opened.mode in ("I", "F", "CMYK"):
            raise ValueError(f"{file}: Pillow would change its colors; convert it to RGB of 8 bits first")
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):  # gray of 16 bits
        low, high = labels()["value_range"] or (0, 65535)
        levels = (np.asarray(image, np.float64) - low).clip(0, high - low) * (255 / (high - low))
        image = Image.fromarray(np.rint(levels).astype(np.uint8))
    colors = image.convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        colors = Image.new("RGB", image.size, "white")
        colors.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return np.asarray(colors)


def answer(file: Any) -> dict[str, Any]:
    """By target the label, the set of labels, the value or the score; NAME_p the probabilities; NAME_abstain whether
    the answer is too improbable."""
    names = labels()["output_names"]
    outputs = dict(zip(names, session().run(names, {"images": read_image(file)[None]}), strict=True))
    if not all(np.isfinite(values).all() for values in outputs.values()):
        raise ValueError(f"{file}: the model's outputs for this image are not finite numbers")
    found: dict[str, Any] = {}
    for target in labels()["targets"]:
        name, names_of_labels = target["name"], target.get("labels", [])
        value = outputs["answers." + name][0]
        if target["type"] == "multilabel":
            found[name] = [label for label, chosen in zip(names_of_labels, value, strict=True) if chosen]
        else:
            found[name] = names_of_labels[value] if target["type"] in ("class", "ordinal") else float(value)
        if "probabilities." + name in outputs:
            found[name + "_p"] = dict(
                zip(names_of_labels, outputs["probabilities." + name][0].tolist(), strict=True)
            )
        if "abstains." + name in outputs:
            found[name + "_abstain"] = bool(outputs["abstains." + name][0])
    if labels()["joint"]:
        found["joint"] = int(outputs["answers.joint"][0])
        if "probabilities.joint" in outputs:
            found["joint_p"] = float(outputs["probabilities.joint"][0])
        if "abstains.joint" in outputs:
            found["joint_abstain"] = bool(outputs["abstains.joint"][0])
    return found


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit("usage: python client.py IMAGE...")
    for path in sys.argv[1:]:
        try:
            found = answer(path)
        except (OSError, ValueError) as error:  # missing, not an image, or one that Pillow would change
            sys.exit(f"error: {error}")
        print(json.dumps({"id": path, **found}, ensure_ascii=False))
