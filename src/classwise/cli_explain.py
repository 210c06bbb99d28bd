"""The command that shows what a trained model looks at. `cli.py` puts it on the command line."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from classwise.cli_checks import check_images, check_run
from classwise.cli_options import Debug, Ensemble, Force, Images, Trust, say_at_once


def explain(
    run: Path,
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *more: Annotated[str, Parameter(allow_leading_hyphen=True)],
    target: Annotated[
        str | None,
        Parameter(help="Explain this target alone, or joint: all of its targets together [default: each]."),
    ] = None,
    label: Annotated[
        str | None, Parameter(help="Explain this label [default: the one that is predicted].")
    ] = None,
    method: Annotated[
        str,
        Parameter(
            help="gradcam (convolutional networks), attention (vision transformers), occlusion (any, slowly, with"
            " captum), or auto (the first that the backbone has the layers for)."
        ),
    ] = "auto",
    out: Annotated[
        Path,
        Parameter(help="The .html file to write, or a folder, for a page and each heat map as a PNG file."),
    ] = Path("explain.html"),
    images: Images = None,
    ensemble: Ensemble = None,
    trust: Trust = "",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Show where in images a model finds what speaks for its answer, as heat maps on a page.

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    source
        Images as for predict: a folder, a table with the path column of the config, one or more images, or a pattern
        such as 'new/*.png'; or - for a list of paths on standard input, one a line.
    more
        Further images or folders.
    """
    from classwise.run.explained_files import check_out, write_explanations

    check_run(run)
    check_images([source, *more])
    check_out(out, force)
    say_at_once(f"explaining what {run} answers", quiet=False)
    from classwise.kfold.api import open_run

    opened = open_run(run, trust, None, ensemble)
    found = opened.explain(
        source if not more else [source, *more],
        target=target,
        label=label,
        method=method,
        images=images,
        quiet=False,
    )
    print(write_explanations(found, opened.path.resolve().name, out))
