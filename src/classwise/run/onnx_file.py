"""What `export` checks before it writes, which files it makes, and what it says of them afterwards."""

from collections.abc import Callable
from pathlib import Path

from classwise.console import Console
from classwise.errors import OutputError
from classwise.files import folder_in_one_step, write_bytes
from classwise.infer.export import with_metadata
from classwise.infer.export_form import ARCHIVE, FOLDER, ONNX, ExportForm, check_form
from classwise.infer.export_whole import Exportable, archive_bytes, folder_files, whole_bytes

INT8 = "int8, with float32 between the layers"


def check_export(out: Path, force: bool, form: ExportForm, channels: int) -> None:
    """`check_form`, and OutputError for a form that a model of so many `channels` cannot have."""
    check_form(out, force, form)
    if (form.preprocessing or out.suffix.lower() == FOLDER) and channels not in (1, 3):
        raise OutputError(
            f"--out {out}: found a model of {channels} channels, which image decoders do not give; allowed: an .onnx"
            " file without --preprocessing, or an archive (.pt2)"
        )


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
