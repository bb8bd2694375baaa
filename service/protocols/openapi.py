"""The prediction routes as FastAPI knows them, so that /docs shows each model's real shape and a real example.

Requests do not come this way, as the hot path is in front; if they did they would get the same answer.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request, Response

from service.protocols.directory import Directory
from service.protocols.lane import Lane
from service.protocols.paths import DEFAULT_PATHS, INVOCATIONS, OPEN_INFERENCE, OWN, PATTERNS, TENSORFLOW, VERTEX
from service.protocols.responses import answer_posted, refuse
from service.protocols.schemas import describe_wire

TITLES = {
    OWN: "one instance",
    OPEN_INFERENCE: "Open Inference Protocol v2",
    TENSORFLOW: "TensorFlow Serving",
    INVOCATIONS: "SageMaker and MLflow",
    VERTEX: "Vertex AI",
}
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
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare answers that are refusals."""
    return {status: {"description": ERRORS[status], "content": _json_content(ERROR_SCHEMA)} for status in statuses}


def add_predict_routes(app: FastAPI, directory: Directory) -> None:
    """Declare the routes of every protocol; what no lane takes gets here, and is refused."""
    for path, lane in directory.table.lanes.items():
        _declare(app, path, lane)

    async def predict_default() -> Response:
        return refuse(directory.find_default)

    async def predict(name: str, version: str | None = None, label: str | None = None) -> Response:
        return refuse(lambda: directory.find(name, version, label))

    for path in DEFAULT_PATHS.values():
        app.add_api_route(path, predict_default, methods=["POST"], include_in_schema=False)
    for pattern in PATTERNS.values():
        for place in ("", "/versions/{version}", "/labels/{label}"):
            path = pattern.format(model="{name}", place=place)
            app.add_api_route(path, predict, methods=["POST"], include_in_schema=False)


def _declare(app: FastAPI, path: str, lane: Lane) -> None:
    async def predict(request: Request) -> Response:  # the hot path is in front, so only a test comes here
        return await answer_posted(lane, request)

    app.add_api_route(
        path,
        predict,
        methods=["POST"],
        tags=[f"predict: {TITLES[lane.protocol]}"],
        summary=f"Predict with model {lane.model.name}",
        operation_id=re.sub(r"\W+", "_", path.strip("/")),
        openapi_extra=_describe(lane),
    )


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


def _json_content(schema: dict[str, Any], example: object = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"application/json": content}
