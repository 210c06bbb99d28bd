"""The command that puts a trained model behind HTTP: serve. `cli.py` puts it on the command line."""

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from classwise.cli_checks import check_run
from classwise.cli_options import Debug, Ensemble, Trust, Tta, say_at_once
from classwise.errors import ConfigError
from classwise.packages import require_packages

ServiceEngine = Annotated[
    str,
    Parameter(
        help="auto (ONNX Runtime where it gives the numbers of torch, which takes a second to find out), onnx or torch."
    ),
]


def serve(
    run: Path,
    /,
    *,
    host: Annotated[
        str,
        Parameter(
            help="Address to listen on; 0.0.0.0 for all addresses of this machine. There is no authentication."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port to listen on; 0 for any free one, which is printed.")] = 8000,
    engine: ServiceEngine = "auto",
    tta: Tta = None,
    ensemble: Ensemble = None,
    max_images: Annotated[int, Parameter(help="Most images in one request.")] = 64,
    max_megabytes: Annotated[float, Parameter(help="Largest request, in 1,000,000 bytes.")] = 32.0,
    max_megapixels: Annotated[
        float | None,
        Parameter(
            help="Most pixels of one image, in 1,000,000 [default: data.max_pixels of the run's config]."
        ),
    ] = None,
    queue: Annotated[
        int, Parameter(help="Images that may wait, of all requests together; with more, the answer is 503.")
    ] = 256,
    batch: Annotated[int, Parameter(help="Most images that go through the model at once.")] = 16,
    timeout: Annotated[
        float, Parameter(help="Seconds for a request to arrive, and as many for its answer.")
    ] = 30.0,
    allow_host: Annotated[
        tuple[str, ...],
        Parameter(
            help="A further name in the Host header of requests, as behind a proxy; may be repeated.",
            show_default=False,
        ),
    ] = (),
    log: Annotated[bool, Parameter(help="Print a line for each request, on stderr.")] = False,
    trust: Trust = "",
    debug: Debug = False,
) -> None:
    """Serve a trained model over HTTP: a page to drop images on, POST /predict for programs, /health and /metrics.

    Answers are those of `classwise predict`. Ends with Ctrl-C or SIGTERM, once requests that have begun are answered.
    Needs the extra: pip install "classwise[serve]".

    Parameters
    ----------
    run
        The run directory, or a folds directory, whose models are averaged.
    """
    require_serving_packages()
    check_run(run)
    say_at_once(f"starting to serve {run}", quiet=False)
    from classwise.serve.limits import Limits

    limits = Limits(
        max_images=max_images,
        max_bytes=_from_millions("--max-megabytes", max_megabytes),
        queue=queue,
        batch=batch,
        timeout=timeout,
    )
    max_pixels = None if max_megapixels is None else _from_millions("--max-megapixels", max_megapixels)
    from classwise.kfold.api import open_run
    from classwise.serve.server import serve as serve_run

    serve_run(
        open_run(run, trust, tta, ensemble),
        host=host,
        port=port,
        engine=engine,
        limits=limits,
        max_pixels=max_pixels,
        allowed_hosts=allow_host,
        logs=log,
    )


def _from_millions(option: str, millions: float) -> int:
    """A number that an option gives in 1,000,000. Raises ConfigError for one below 1, or without end."""
    if not 1 <= millions * 1_000_000 < math.inf:
        raise ConfigError(f"{option}: found {millions:g}, allowed: 0.000001 or more")
    return round(millions * 1_000_000)


def require_serving_packages() -> None:
    """Raises ModelError where one of the packages of the extra `serve` cannot be imported."""
    require_packages("serve", "serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
