"""A state dict as JSON and tensors: what an optimizer keeps, without pickle."""

from typing import Any

import torch
from torch import Tensor

from classwise.errors import CheckpointError

_DTYPES = {
    str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)
}


def flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON. Tensors move to `tensors` and leave their key; integer keys, tuples and dtypes are marked."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"$tensor": path}
    if isinstance(value, dict):
        inner = {str(key): flatten(item, f"{path}.{key}".lstrip("."), tensors) for key, item in value.items()}
        return {"$numbered": inner} if any(isinstance(key, int) for key in value) else inner
    if isinstance(value, list | tuple):
        items = [flatten(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"the optimizer's state has a {type(value).__name__} at {path}, which cannot be saved"
    )


def unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `flatten` was given."""
    if isinstance(value, list):
        return [unflatten(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$numbered" in value:
        return {int(key): unflatten(item, tensors) for key, item in value["$numbered"].items()}
    if "$dtype" in value:
        return _DTYPES[value["$dtype"]]
    if "$tuple" in value:
        return tuple(unflatten(item, tensors) for item in value["$tuple"])
    return {key: unflatten(item, tensors) for key, item in value.items()}
