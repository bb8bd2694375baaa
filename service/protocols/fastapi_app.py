"""FastAPI over all that is served: documents and descriptions for people, and every route in one OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from service.errors import FoldserveError
from service.management import Manager
from service.metrics import Metrics
from service.open_inference_catalog import OpenInferenceCatalog
from service.protocols.bugs import BUG
from service.protocols.descriptions import foldserve_version
from service.protocols.directory import Directory
from service.protocols.documents import add_documents
from service.protocols.http_errors import answer_error, answer_status
from service.protocols.management_routes import add_management_routes
from service.protocols.open_inference_routes import add_open_inference_routes
from service.protocols.openapi import add_predict_routes, describe_predictions
from service.protocols.responses import to_response
from service.protocols.tail_routes import add_tail_routes
from service.protocols.tensorflow_routes import add_tensorflow_routes

if TYPE_CHECKING:
    from service.tail.recorder import Tail


def create_fastapi(
    directory: Directory, metrics: Metrics, manager: Manager, tail: Tail | None = None, *, wants_keys: bool = False
) -> FastAPI:
    """Create the application for what the directory holds; with `wants_keys`, /docs asks for one."""
    # The assets of /docs come with the package: the page opens without a network.
    dependencies = [Security(HTTPBearer(auto_error=False))] if wants_keys else []
    app = FastAPIOffline(
        title="foldserve",
        version=foldserve_version(),
        redoc_url=None,
        redirect_slashes=False,
        dependencies=dependencies,
    )
    _answer_errors(app)
    add_documents(app, directory, metrics)
    add_tail_routes(app, tail)
    catalog = OpenInferenceCatalog(directory, metrics, manager)
    add_open_inference_routes(app, catalog)
    add_tensorflow_routes(app, directory)
    add_management_routes(app, catalog, manager)
    add_predict_routes(app, directory)
    _describe_what_is_served(app, directory, wants_keys=wants_keys)
    return app


def _describe_what_is_served(app: FastAPI, directory: Directory, *, wants_keys: bool) -> None:
    """Have the document describe the models as they are when somebody reads it, and predictions first."""
    static = app.openapi()
    for operation in (operation for path in static["paths"].values() for operation in path.values()):
        operation.setdefault("tags", ["what is served, and how it is"])

    def describe() -> dict[str, Any]:
        return {**static, "paths": {**describe_predictions(directory, wants_keys=wants_keys), **static["paths"]}}

    app.openapi = describe  # type: ignore[method-assign]


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(FoldserveError)
    async def on_own_error(_: Request, err: FoldserveError) -> Response:
        return to_response(answer_error(err))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, err: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:200]}: {str(err.detail).lower()}; GET / lists what there is"
        headers = tuple((name.lower().encode(), value.encode()) for name, value in (err.headers or {}).items())
        return to_response(answer_status(err.status_code, message, headers))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, err: RequestValidationError) -> Response:
        return to_response(answer_status(422, f"the request is invalid: {err.errors()[0]['msg']}"))

    @app.exception_handler(Exception)
    async def on_bug(_: Request, __: Exception) -> Response:
        return to_response(answer_status(500, BUG))
