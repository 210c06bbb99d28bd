"""How a model can be exported, and what is refused before it is read, without torch."""

from dataclasses import dataclass
from pathlib import Path

from classwise.errors import OutputError
from classwise.files import refuse_existing
from classwise.packages import require_packages

MODEL_FILE, LABELS_FILE, CLIENT_FILE = "model.onnx", "labels.json", "client.py"
"""The files of an exported folder."""
ONNX, ARCHIVE, FOLDER = ".onnx", ".pt2", ""
OWN_FILES = {MODEL_FILE, LABELS_FILE, CLIENT_FILE, "__pycache__"}
"""What a folder of ours may hold; the last comes with importing the client."""
MAX_LOSS = 0.01
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


def check_form(out: Path, force: bool, form: ExportForm) -> None:
    """Raise OutputError for a name and options that do not go together, and for what exists; ModelError where a package
    is missing."""
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
    if suffix == FOLDER:
        _refuse_folder(out, force)
    else:
        refuse_existing(out, force)
    if suffix != ARCHIVE:
        require_packages("export", "onnx", "onnx", "onnxscript")
    if form.int8:
        require_packages("export --int8", "onnx", "onnx", "onnxruntime")


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
