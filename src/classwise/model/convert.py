"""State dicts of other programs (.pth, .pt) as a .safetensors file with a backbone's own names: converted once, and
read without pickle from then on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from classwise.errors import ModelError, first_line
from classwise.model.backbone import new_backbone

CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "state_dict_ema",
    "model_ema",
    "teacher",
    "net",
)
"""Keys under which programs keep the state dict in a checkpoint, the likeliest first."""

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "visual.", "base_encoder.")
"""What programs put before the names of a backbone: data parallel, torch.compile, and a module that holds it."""

MOST_PREFIXES = 4  # one in another


def converted(
    path: Path, backbone: str | None, image_size: tuple[int, int] = (224, 224)
) -> tuple[bytes, list[str]]:
    """The bytes of the .safetensors file, and notes on what was taken and what was left out.

    With `backbone` (timm's or built in) the tensors are those of that backbone, whatever stands before their names;
    without it all tensors are kept under their names, less a common prefix. The file is read as tensors only
    (`weights_only`): no code in it is run. Raises ModelError.
    """
    tensors, where = _state_dict(path)
    notes = [f"{path}: {len(tensors)} tensors" + (f" under {where!r}" if where else "")]
    if backbone is None:
        prefix = _common_prefix(list(tensors))
        chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        notes += [f"left out {prefix!r} before all names"] if prefix else []
        notes += ["not compared with a backbone: --backbone NAME does that"]
    else:
        chosen, note = _of_backbone(tensors, backbone, image_size, path)
        notes.append(note)
    # Copies, since views of one storage cannot be written.
    return save({name: tensor.detach().clone().contiguous() for name, tensor in chosen.items()}), notes


def _state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of the file by name, and the key under which they were; empty for none."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise ModelError(f"{path} cannot be read as a file of torch's: {first_line(error)}") from None
        # torch's message recommends to load it all the same, which would run its code.
        found_class = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({found_class[1]})" if found_class else ""
        raise ModelError(
            f"{path} holds more than tensors{what}, and nothing else is read from it; where it comes from, save"
            " model.state_dict() instead of the model"
        ) from None

    where = ""
    while isinstance(found, Mapping) and not _tensors(found):
        inner = next((key for key in CONTAINERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        where, found = inner, found[inner]
    else:
        # A checkpoint may hold a few tensors beside the state dict.
        if isinstance(found, Mapping):
            inner = next((key for key in CONTAINERS if isinstance(found.get(key), Mapping)), None)
            if inner is not None and len(_tensors(found[inner])) > len(_tensors(found)):
                where, found = inner, found[inner]
    tensors = _tensors(found) if isinstance(found, Mapping) else {}
    if not tensors:
        keys = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise ModelError(f"{path}: found no tensors by name, but {keys:.200}; allowed: a state dict")
    return tensors, where


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)
    }


def _of_backbone(
    tensors: Mapping[str, Tensor], backbone: str, image_size: tuple[int, int], path: Path
) -> tuple[dict[str, Tensor], str]:
    """The tensors of the backbone, under its names, and a note. Raises ModelError where one is missing."""
    expected = new_backbone(backbone, image_size).state_dict()
    # Of equally good prefixes the first, which is the shortest.
    prefix = max(_possible_prefixes(list(tensors)), key=lambda text: _count_fitting(tensors, expected, text))
    missing = [
        name
        for name, tensor in expected.items()
        if prefix + name not in tensors or tensors[prefix + name].shape != tensor.shape
    ]
    if missing:
        name = missing[0]
        shape = tuple(tensors[prefix + name].shape) if prefix + name in tensors else "missing"
        raise ModelError(
            f"{path}: {len(expected) - len(missing)} of the {len(expected)} tensors of {backbone} are there with their"
            f" shape; {name!r} is {shape}, and must be {tuple(expected[name].shape)}. It holds, for example,"
            f" {next(iter(tensors))!r}"
        )
    chosen = {name: tensors[prefix + name] for name in expected}
    others = [name for name in tensors if name.removeprefix(prefix) not in expected]
    note = f"all {len(expected)} tensors of {backbone}" + (
        f", without {prefix!r} before their names" if prefix else ""
    )
    if others:
        note += f"; {len(others)} others are left out, such as {others[0]!r}"
    return chosen, note


def _count_fitting(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str) -> int:
    return sum(
        prefix + name in tensors and tensors[prefix + name].shape == tensor.shape
        for name, tensor in expected.items()
    )


def _possible_prefixes(names: list[str]) -> list[str]:
    """No prefix, and what programs put before the names, one within another."""
    found = [""]
    for _ in range(MOST_PREFIXES):
        found += [
            text + prefix
            for text in found
            for prefix in PREFIXES
            if text + prefix not in found and any(name.startswith(text + prefix) for name in names)
        ]
    return list(dict.fromkeys(found))


def _common_prefix(names: list[str]) -> str:
    """The prefixes of PREFIXES that all names begin with."""
    prefix = ""
    while True:
        inner = next((p for p in PREFIXES if all(name.startswith(prefix + p) for name in names)), None)
        if inner is None:
            return prefix
        prefix += inner
