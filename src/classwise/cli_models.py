"""The commands that use a trained model: evaluate, predict, submit, export, report; and convert, for weights of other
programs. `cli.py` puts them on the command line."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from classwise.cli_checks import check_images, check_run
from classwise.cli_options import Debug, Engine, Ensemble, Force, Images, Trust, Tta, say_at_once

if TYPE_CHECKING:
    import polars as pl

BadImages = Annotated[
    str,
    Parameter(
        help="Images that cannot be used: error (list them all, and write nothing) or skip (say which in the output,"
        " and end with exit code 3)."
    ),
]


def evaluate(
    run: Path,
    table: Path | None = None,
    /,
    *,
    images: Images = None,
    bad_images: BadImages = "error",
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print all metrics as JSON, as in metrics.json.")
    ] = False,
    tta: Tta = None,
    ensemble: Ensemble = None,
    trust: Trust = "",
    debug: Debug = False,
) -> None:
    """Print the metrics of a run on its own test and validation rows, or on another labeled table or folder.

    Labels of the table that the model has never seen count as mistakes, with a warning.

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    table
        A labeled table, or a folder with one sub-folder per class [default: the run's own test and validation rows].
    """
    check_run(run)
    if table is not None:
        check_images([str(table)])
    from classwise.errors import SkippedImages
    from classwise.kfold.api import open_run
    from classwise.metrics.text import metrics_text

    metrics = open_run(run, trust, tta, ensemble).evaluate(table, images, quiet=False, bad_images=bad_images)
    print(json.dumps(metrics, indent=1, ensure_ascii=False) if as_json else metrics_text(metrics))
    if skipped := metrics.get("skipped"):
        first = skipped[0]
        what = (
            "1 image cannot be used and is"
            if len(skipped) == 1
            else f"{len(skipped)} images cannot be used and are"
        )
        raise SkippedImages(f"{what} not scored, such as {first['path']}: {first['reason']}")


def predict(
    run: Path,
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *more: Annotated[str, Parameter(allow_leading_hyphen=True)],
    out: Annotated[
        Path | None,
        Parameter(help="The .csv, .tsv or .parquet file to write [default: CSV on standard output]."),
    ] = None,
    images: Images = None,
    bad_images: BadImages = "error",
    probabilities: Annotated[
        str,
        Parameter(
            help="all (of every class), top (the five most probable labels), or auto (all up to 200 classes)."
        ),
    ] = "auto",
    engine: Engine = "torch",
    tta: Tta = None,
    ensemble: Ensemble = None,
    trust: Trust = "",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Predict labels and class probabilities for a folder of images, a table, or image files.

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    source
        A folder of images; a table with the path column of the config; one or more images, or a pattern such as
        'new/*.png'; or - for a list of paths on standard input, one a line.
    more
        Further images or folders.
    """
    from classwise.data.table import SUFFIXES, write_table
    from classwise.errors import DataError, OutputError
    from classwise.files import refuse_existing

    sources = [source, *more]
    for name in sources:
        if name.startswith("-") and name != "-" and not Path(name).exists():
            raise DataError(f"predict: found {name!r}, which is neither an option nor a file")
    if out is not None:
        if out.suffix.lower() not in SUFFIXES:
            raise OutputError(
                f"--out {out}: found {out.suffix or 'no'} suffix, allowed: {', '.join(SUFFIXES)}"
            )
        refuse_existing(out, force)
    check_run(run)
    check_images(sources)
    from classwise.kfold.api import open_run  # torch, for which nobody should wait before a mistake is named

    predictions = open_run(run, trust, tta, ensemble).predict(
        source if not more else sources,
        images,
        quiet=False,
        engine=engine,
        bad_images=bad_images,
        probabilities=probabilities,
    )
    if out is None:
        print(predictions.write_csv(), end="")
    else:
        write_table(predictions, out, escape_formulas=True)
        print(out)
    _report_skipped(predictions)


def _report_skipped(predictions: "pl.DataFrame") -> None:
    """Raise SkippedImages where rows have an error; the predictions are written already."""
    from classwise.errors import SkippedImages

    if "error" not in predictions.columns:
        return
    bad = predictions.filter(predictions["error"].is_not_null())
    if bad.height:
        raise SkippedImages(
            f"{bad.height} of {predictions.height} images cannot be used, such as {bad['id'][0]}: {bad['error'][0]};"
            " their rows are empty but for the column 'error'"
        )


def submit(
    run: Path,
    template: Path,
    /,
    *,
    images: Annotated[Path, Parameter(help="Folder with the images of the template's ids.")],
    out: Annotated[Path, Parameter(help="The submission file to write.")],
    id: Annotated[
        str | None, Parameter(help="The id column of the template [default: its first column].")
    ] = None,
    answer: Annotated[
        str,
        Parameter(
            help="What is written: label, index (its number, from 0), probability, rank (1 = lowest), or auto (what the"
            " template's columns and values show)."
        ),
    ] = "auto",
    positive: Annotated[
        str | None,
        Parameter(
            help="The label whose probability or rank a single column takes [default: the positive of two]."
        ),
    ] = None,
    clip: Annotated[
        float | None, Parameter(help="Keep probabilities this far from 0 and 1, as the log loss asks for.")
    ] = None,
    bad_images: BadImages = "error",
    fallback: Annotated[
        str | None,
        Parameter(
            help="With --bad-images skip: the answer for them [default: the most frequent label, or the shares of"
            " the training rows]."
        ),
    ] = None,
    engine: Engine = "torch",
    tta: Tta = None,
    ensemble: Ensemble = None,
    trust: Trust = "",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Fill in a competition's submission template with predictions, and check the file against the template.

    Columns that are named as the labels get their probabilities.

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    template
        The competition's table of ids, with one or more columns for the predictions.
    """
    from classwise.errors import OutputError, SkippedImages

    if out.suffix.lower() != template.suffix.lower():
        raise OutputError(
            f"--out {out}: found suffix {out.suffix or '(none)'}, allowed: {template.suffix}, as in the template"
        )
    check_run(run)
    from classwise.kfold.api import open_run

    opened = open_run(run, trust, tta, ensemble)
    skipped = opened.submit_with_note(
        template,
        images,
        out,
        id=id,
        force=force,
        quiet=False,
        engine=engine,
        answer=answer,
        positive=positive,
        clip=clip,
        bad_images=bad_images,
        fallback=fallback,
    )
    print(out)
    if skipped:
        raise SkippedImages(f"{skipped}; the answers of their rows are guesses")


def export(
    run: Path,
    /,
    *,
    out: Annotated[
        Path,
        Parameter(
            help="A folder (no suffix) for an ONNX file, labels and a client; an .onnx file; or a .pt2 archive of"
            " torch.export's."
        ),
    ],
    preprocessing: Annotated[
        bool,
        Parameter(
            negative="",
            help="An .onnx file takes images of any size and gives the answers of predict, as in a folder. Without it:"
            " images at the model's size, raw outputs.",
        ),
    ] = False,
    int8: Annotated[
        bool,
        Parameter(
            negative="",
            help="The network in 8 bits, calibrated on training images; what it costs is measured on the validation"
            " rows.",
        ),
    ] = False,
    max_loss: Annotated[
        float | None,
        Parameter(
            help="With --int8: how much of the selection metric may be lost, in its own unit [default: 0.01]."
        ),
    ] = None,
    trust: Trust = "",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Export the model: as a folder that answers as predict does without torch, an ONNX file, or an archive.

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    """
    from classwise.infer.export_form import ExportForm, check_form

    check_run(run)
    check_form(out, force, ExportForm(preprocessing, int8, max_loss))
    say_at_once(f"exporting {run}", quiet=False)
    from classwise.kfold.api import open_run

    opened = open_run(run, trust)
    print(opened.export(out, force, quiet=False, preprocessing=preprocessing, int8=int8, max_loss=max_loss))


def convert(
    file: Path,
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(help="The .safetensors file to write [default: beside FILE, with this suffix]."),
    ] = None,
    backbone: Annotated[
        str | None, Parameter(help="Take the tensors of this backbone, and refuse a file that lacks any.")
    ] = None,
    image_size: Annotated[
        tuple[int, int], Parameter(help="Height and width that the backbone is built for.")
    ] = (224, 224),
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Convert weights of other programs (.pth, .pt) to a .safetensors file for model.weights. No code in them is run.

    Parameters
    ----------
    file
        A file of torch's with a state dict, alone or in a checkpoint.
    """
    from classwise.errors import OutputError
    from classwise.files import refuse_existing, write_bytes
    from classwise.model.convert import converted

    out = file.with_suffix(".safetensors") if out is None else out
    if out.suffix.lower() != ".safetensors":
        raise OutputError(f"--out {out}: found {out.suffix or 'no'} suffix, allowed: .safetensors")
    refuse_existing(out, force)
    data, notes = converted(file, backbone, image_size)
    for note in notes:
        print(note, file=sys.stderr)
    write_bytes(out, data)
    print(out)


def report(run: Path, /, *, trust: Trust = "", debug: Debug = False) -> None:
    """Write report.html again, from the files of the run directory.

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    """
    check_run(run)
    from classwise.kfold.reporting import report_again

    print(report_again(run, trust))
