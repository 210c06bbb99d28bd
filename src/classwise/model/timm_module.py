"""timm, imported when it is first needed: it takes seconds, and what is wrong with it deserves a clear message."""

from typing import Any

from classwise.errors import ModelError


def import_timm() -> Any:
    """The module timm; ModelError if it is missing or torchvision does not match torch."""
    try:
        import timm
    except RuntimeError as error:
        if "torchvision::nms" in str(error):
            import torch

            raise ModelError(
                f"the installed torch ({torch.__version__}) and torchvision do not match (often a"
                " CPU-only torch beside PyPI's torchvision). Install both from the same place:"
                " pip install --force-reinstall torch torchvision"
            ) from None
        raise
    except ImportError as error:
        raise ModelError(f"timm cannot be imported: {error}; pip install timm torchvision") from None
    return timm
