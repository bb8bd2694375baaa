"""The prediction routes as OpenAPI has them, so that /docs shows each model's real shape and a real example.

Requests for what is served do not come this way, as the hot path is in front; if they did they would get the same
answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response

from service.protocols.directory import Directory
from service.protocols.lane import Lane
from service.protocols.paths import DEFAULT_PATHS, INVOCATIONS, OPEN_INFERENCE, OWN, PATTERNS, TENSORFLOW, VERTEX
from service.protocols.responses import answer_posted
from service.protocols.schemas import describe_wire, json_content

TITLES = {
    OWN: "one instance",
    OPEN_INFERENCE: "Open Inference Protocol v2",
    TENSORFLOW: "TensorFlow Serving",
    INVOCATIONS: "SageMaker and MLflow",
    VERTEX: "Vertex AI",
}
BEARER = "HTTPBearer"  # as FastAPI names it
LANE_AT = {path: protocol for protocol, path in DEFAULT_PATHS.items()}
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        key: {"type": "string"} for key in ("error", "code", "field", "expected", "got", "error_code", "message")
    },
}
ERRORS = {
    400: "The body is not JSON, or no request of the protocol",
    401: "The route wants an API key",
    403: "Who asks is not allowed to",
    404: "No such model",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "The body is JSON, but no instance of this model",
    429: "Too many requests wait; retry-after says when to come back",
    500: "The runtime failed",
    503: "Too many connections",
    504: "The time given by x-request-timeout was over",
    507: "The device has no memory left for this run",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare answers that are refusals."""
    return {status: {"description": ERRORS[status], "content": json_content(ERROR_SCHEMA)} for status in statuses}


def add_predict_routes(app: FastAPI, directory: Directory) -> None:
    """Declare the routes of every protocol for what no lane takes, which is refused; what is served is described apart.

    Models come and go, and FastAPI's routes do not.
    """

    async def predict_default(request: Request) -> Response:
        lane_of = LANE_AT[request.url.path]
        return await answer_posted(lambda: directory.find_default().lanes[lane_of], request)

    for path in DEFAULT_PATHS.values():
        app.add_api_route(path, predict_default, methods=["POST"], include_in_schema=False)
    for protocol, pattern in PATTERNS.items():
        for place in ("", "/versions/{version}", "/labels/{label}"):
            path = pattern.format(model="{name}", place=place)
            app.add_api_route(path, _plan_route(directory, protocol), methods=["POST"], include_in_schema=False)


def _plan_route(directory: Directory, protocol: str) -> Callable[..., Awaitable[Response]]:
    async def predict(request: Request, name: str, version: str | None = None, label: str | None = None) -> Response:
        return await answer_posted(lambda: directory.find(name, version, label).lanes[protocol], request)

    return predict


def describe_predictions(directory: Directory, *, wants_keys: bool) -> dict[str, Any]:
    """Describe the routes of the models that are served now, as OpenAPI's `paths`."""
    security: dict[str, Any] = {"security": [{BEARER: []}]} if wants_keys else {}
    return {path: {"post": {**_name(path, lane), **security, **_describe(lane)}} for path, lane in _lanes(directory)}


def _lanes(directory: Directory) -> list[tuple[str, Lane]]:
    return list(directory.table.lanes.items())


def _name(path: str, lane: Lane) -> dict[str, Any]:
    return {
        "tags": [f"predict: {TITLES[lane.protocol]}"],
        "summary": f"Predict with model {lane.model.name}",
        "operationId": re.sub(r"\W+", "_", path.strip("/")),
    }


def _describe(lane: Lane) -> dict[str, Any]:
    wire = describe_wire(lane.protocol, lane.model)
    invalid = () if lane.protocol == OWN else (422,)
    errors = error_responses(*(status for status in sorted(ERRORS) if status not in invalid))
    return {
        "requestBody": {"required": True, "content": wire.request},
        "responses": {
            "200": {"description": "The prediction", "content": wire.answer},
            **{str(status): refusal for status, refusal in errors.items()},
        },
        **({"parameters": wire.parameters} if wire.parameters else {}),
    }
