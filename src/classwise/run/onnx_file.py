"""What `export` checks before it writes an ONNX file, and says of it afterwards."""

from pathlib import Path

from classwise.console import Console
from classwise.errors import OutputError
from classwise.files import refuse_existing
from classwise.infer.export import require_packages


def check_onnx_file(out: Path, force: bool) -> None:
    """Raise OutputError for another suffix and for a file that exists, ModelError where a package is missing."""
    if out.suffix.lower() != ".onnx":
        raise OutputError(f"--out {out}: found {out.suffix or 'no'} suffix, allowed: .onnx")
    refuse_existing(out, force)
    require_packages("classwise export", "onnx", "onnxscript")


def say_single_view(tta: str, console: Console) -> None:
    """Say that the file computes no test-time augmentation, where predictions have it."""
    if tta != "none":
        console.line(
            f"note: the file computes one view of each image; inference.tta = {tta!r} is for predict, evaluate and"
            " submit"
        )
