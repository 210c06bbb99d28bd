"""What `export` checks before it writes, which files it makes, and what it says of them afterwards."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from classwise.console import Console
from classwise.errors import OutputError
from classwise.files import folder_in_one_step, refuse_existing, write_bytes
from classwise.infer.export import with_metadata
from classwise.infer.export_whole import (
    CLIENT_FILE,
    LABELS_FILE,
    MODEL_FILE,
    Exportable,
    archive_bytes,
    folder_files,
    whole_bytes,
)
from classwise.packages import require_packages

ONNX, ARCHIVE, FOLDER = ".onnx", ".pt2", ""
OWN_FILES = {MODEL_FILE, LABELS_FILE, CLIENT_FILE, "__pycache__"}
"""What a folder of ours may hold; the last comes with importing the client."""
MAX_LOSS = 0.01
INT8 = "int8, with float32 between the layers"
FORMATS = (
    ".onnx (one ONNX file), .pt2 (an archive of torch.export's), or no suffix (a folder with the ONNX file,"
    " labels and a client)"
)


@dataclass(frozen=True)
class ExportForm:
    """How a model is exported. `preprocessing`: whether an ONNX file takes images of any size and gives final answers,
    as that of a folder always does. `int8`: whether the network computes in 8 bits, for which at most `max_loss` of
    the selection metric on validation rows may be lost (default: MAX_LOSS)."""

    preprocessing: bool = False
    int8: bool = False
    max_loss: float | None = None

    @property
    def allowed_loss(self) -> float:
        """`max_loss`, or its default."""
        return MAX_LOSS if self.max_loss is None else self.max_loss


def check_export(out: Path, force: bool, form: ExportForm, channels: int) -> None:
    """Raise OutputError for a name, options or a model that do not go together, and for what exists; ModelError where a
    package is missing. `channels`: of the model."""
    suffix = out.suffix.lower()
    if suffix not in (ONNX, ARCHIVE, FOLDER):
        raise OutputError(f"--out {out}: found {out.suffix} suffix, allowed: {FORMATS}")
    if form.preprocessing and suffix == ARCHIVE:
        raise OutputError(f"--preprocessing: found --out {out}, allowed: an .onnx file or a folder")
    if form.int8 and suffix == ARCHIVE:
        raise OutputError(f"--int8: found --out {out}, allowed: an .onnx file or a folder")
    if not form.allowed_loss >= 0:  # `not >=`, for NaN
        raise OutputError(f"--max-loss: found {form.max_loss:g}, allowed: 0 or more")
    if form.max_loss is not None and not form.int8:
        raise OutputError(f"--max-loss: found {form.max_loss:g} without --int8, of which alone it is a limit")
    if (form.preprocessing or suffix == FOLDER) and channels not in (1, 3):
        raise OutputError(
            f"--out {out}: found a model of {channels} channels, which image decoders do not give; allowed: an .onnx"
            " file without --preprocessing, or an archive (.pt2)"
        )
    if suffix == FOLDER:
        _refuse_folder(out, force)
    else:
        refuse_existing(out, force)
    if suffix != ARCHIVE:
        require_packages("classwise export", "onnx", "onnx", "onnxscript")
    if form.int8:
        require_packages("classwise export --int8", "onnx", "onnxruntime")


def has_answers(out: Path, form: ExportForm) -> bool:
    """Whether what is written gives final answers, not raw outputs."""
    return form.preprocessing or out.suffix.lower() != ONNX


def write_export(
    exportable: Exportable, out: Path, form: ExportForm, quantize: Callable[[bytes], bytes] | None = None
) -> None:
    """Write a file or, all at once, a folder. `quantize`: from the network as an ONNX file to that in 8 bits. Raises
    ModelError; nothing is written then."""
    suffix = out.suffix.lower()
    if suffix == ARCHIVE:
        write_bytes(out, archive_bytes(exportable))
        return
    network = exportable.network_bytes()
    precision = "float32"
    if quantize is not None:
        precision = INT8
        network = with_metadata(quantize(network), {**exportable.metadata, "precision": precision})
    if suffix == FOLDER:
        files = folder_files(exportable, network, precision)
        with folder_in_one_step(out) as folder:
            for name, data in files.items():
                write_bytes(folder / name, data)
    elif form.preprocessing:
        write_bytes(out, whole_bytes(exportable, network, precision))
    else:
        write_bytes(out, network)


def say_single_view(tta: str, console: Console) -> None:
    """Say that the file computes no test-time augmentation, where predictions have it."""
    if tta != "none":
        console.line(
            f"note: the file computes one view of each image; inference.tta = {tta!r} is for predict, evaluate and"
            " submit"
        )


def _refuse_folder(out: Path, force: bool) -> None:
    """A folder is replaced only if it holds nothing but what export has written: nothing else is lost by --force."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, which no folder replaces; it is kept. Use another name")
    if out.exists() and not force:
        raise OutputError(f"{out} exists already; it is kept. Use --force to replace it, or another name")
    if not out.parent.is_dir():
        raise OutputError(f"{out}: there is no folder {out.parent}; make it first, or name another folder")
    if out.is_dir():
        other = sorted(path.name for path in out.iterdir() if path.name not in OWN_FILES)
        if other:
            raise OutputError(
                f"{out} holds other things than an exported model, such as {other[0]}; it is kept. Use another name"
            )
