"""The service's routes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from classwise.serve.batcher import Batcher
from classwise.serve.bodies import FIELD, RAW, read_uploads
from classwise.serve.figures import Figures
from classwise.serve.limits import Limits
from classwise.serve.model import ServedModel
from classwise.serve.quota import Quota
from classwise.serve.refusals import Refusal, too_late
from classwise.serve.schemas import Answer, Health, Problem
from classwise.version import __version__

JSON = "application/json"
PAGE_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
PREDICT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                        }
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            RAW: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not whole, or is no form of images."},
    408: {"model": Problem, "description": "The body did not come within the time allowed."},
    413: {"model": Problem, "description": "Too many bytes or images."},
    415: {"model": Problem, "description": "A type other than a form or an image."},
    422: {"model": Answer, "description": "None of the images can be used; each entry says why."},
    500: {"model": Problem, "description": "The model failed, or the service itself."},
    503: {"model": Problem, "description": "Too much waits; Retry-After says when to try again."},
}


def service_app(
    model: ServedModel,
    limits: Limits,
    batcher: Batcher,
    figures: Figures,
    held_bytes: Quota,
    say: Callable[[str], None],
) -> FastAPI:
    """The routes of a service, without what server.py adds to every answer. `batcher` is the caller's to close; `say`
    prints errors."""
    # The pages of FastAPI's own documentation load scripts from elsewhere.
    app = FastAPI(
        title="classwise",
        version=__version__,
        description=f"Predictions of {model.name}.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_found)

    async def failed(request: Request, error: Exception) -> Response:
        say(f"error: a request failed with {type(error).__name__}: {error}")
        # uvicorn ends the connection after an error: a client that does not know would send its next request on it.
        return _problem(500, "the request failed; the service's log says how", {"Connection": "close"})

    app.add_exception_handler(Exception, failed)
    _add_page(app)

    @app.post(
        "/predict", response_model=Answer, responses=REFUSALS, openapi_extra=PREDICT_BODY, tags=["predict"]
    )
    async def predict(request: Request) -> Response:
        """The predictions for one or many images, in the order in which they are sent.

        An image that cannot be used has an entry with its `error`; the status is 422 where that is all of them.
        """
        with held_bytes.share() as held:
            uploads = await read_uploads(request, limits, held)
            try:
                async with asyncio.timeout(limits.timeout):
                    answers = await batcher.answers([upload.data for upload in uploads])
            except TimeoutError:
                raise too_late(limits.timeout) from None
        named = [
            answer.model_copy(update={"name": upload.name})
            for answer, upload in zip(answers, uploads, strict=True)
        ]
        refused = sum(answer.error is not None for answer in named)
        figures.images.labels("refused").inc(refused)
        figures.images.labels("answered").inc(len(named) - refused)
        return Response(
            Answer(images=named).model_dump_json(exclude_none=True),
            status_code=422 if refused == len(named) else 200,
            media_type=JSON,
        )

    @app.get("/health", tags=["service"])
    async def health() -> Health:
        """That the service answers, and with which model."""
        return model.health(limits.max_images, limits.max_bytes)

    @app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(figures.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app


def _add_page(app: FastAPI) -> None:
    """The page to drop images on, read once."""
    for path, (name, media_type) in PAGE_FILES.items():
        content = (Path(__file__).parent / name).read_bytes()

        async def page(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type)

        app.add_api_route(path, page, include_in_schema=False)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _problem(error.status, str(error), error.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    """404 and 405, in the form of all other refusals."""
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, str(error.detail), dict(error.headers or {}))


def _problem(status: int, message: str, headers: dict[str, str]) -> Response:
    return Response(
        Problem(error=message).model_dump_json(), status_code=status, media_type=JSON, headers=headers
    )
