"""The prediction routes as FastAPI knows them, so that /docs shows each model's real shape and a real example.

Requests seldom come this way, as the hot path is in front; when they do they get the same answer from the same code.
"""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI, Request, Response

from service.bundle import Feature, Signature
from service.protocols.descriptions import example_request
from service.protocols.directory import Directory
from service.protocols.lane import Lane
from service.protocols.paths import OWN
from service.protocols.responses import answer_posted, refuse

ERROR_SCHEMA = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {key: {"type": "string"} for key in ("error", "code", "field", "expected", "got")},
}
ERRORS = {
    400: "The body is not JSON",
    401: "The route wants an API key",
    403: "Who asks is not allowed to",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "The body is JSON, but no instance of this model",
    429: "Too many requests wait; retry-after says when to come back",
    500: "The runtime failed",
    503: "Too many connections",
    504: "The time given by x-request-timeout was over",
}


def add_predict_routes(app: FastAPI, directory: Directory) -> None:
    """Declare the documented routes of the models that are served; what no lane takes gets here, and is refused."""
    for path, lane in directory.table.lanes.items():
        if lane.protocol == OWN:
            _declare(app, path, lane)

    @app.post("/predict", include_in_schema=False)
    async def predict_default() -> Response:
        return refuse(directory.find_default)

    @app.post("/models/{name}/predict", include_in_schema=False)
    @app.post("/models/{name}/versions/{version}/predict", include_in_schema=False)
    @app.post("/models/{name}/labels/{label}/predict", include_in_schema=False)
    async def predict(name: str, version: str | None = None, label: str | None = None) -> Response:
        return refuse(lambda: directory.find(name, version, label))


def _declare(app: FastAPI, path: str, lane: Lane) -> None:
    async def predict(request: Request) -> Response:  # the hot path is in front, so only a test comes here
        return await answer_posted(lane, request)

    app.add_api_route(
        path,
        predict,
        methods=["POST"],
        summary=f"Predict for one instance, with model {lane.model.name}",
        operation_id=path.strip("/").replace("/", "_"),
        openapi_extra=_describe(lane),
    )


def _describe(lane: Lane) -> dict[str, Any]:
    signature = lane.model.predictor.signature
    return {
        "requestBody": {
            "required": True,
            "content": _json_content(request_schema(signature), example_request(lane.model)),
        },
        "responses": {
            "200": {"description": "The prediction", "content": _json_content(answer_schema(signature))},
            **{
                str(status): {"description": description, "content": _json_content(ERROR_SCHEMA)}
                for status, description in ERRORS.items()
            },
        },
    }


def _json_content(schema: dict[str, Any], example: object = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"application/json": content}


def request_schema(signature: Signature) -> dict[str, Any]:
    """Give the JSON schema of a request body."""
    return _object({"instance": _instance_schema(signature)})


def answer_schema(signature: Signature) -> dict[str, Any]:
    """Give the JSON schema of a prediction."""
    label = {"type": "string", "enum": list(signature.labels)} if signature.labels else {"type": "integer"}
    scores = _array({"type": "number"}, signature.outputs[0].shape[0])
    version = {"type": ["string", "null"]}
    return _object(
        {
            "prediction": _object({"label": label, "scores": scores}),
            "model": _object({"name": {"type": "string"}, "version": version}),
        }
    )


def _instance_schema(signature: Signature) -> dict[str, Any]:
    number = {"type": "integer" if signature.input.dtype == "int64" else "number"}
    if signature.features:
        return _row_schema(signature.features, number)
    flat = _array(number, math.prod(signature.input.shape))
    if len(signature.input.shape) == 1:
        return flat
    nested = number
    for size in reversed(signature.input.shape):
        nested = _array(nested, size)
    return {"oneOf": [flat, nested]}


def _row_schema(features: tuple[Feature, ...], number: dict[str, Any]) -> dict[str, Any]:
    kinds = [_feature_schema(feature, number) for feature in features]
    named = _object({feature.name: kind for feature, kind in zip(features, kinds, strict=True)})
    ordered = {"type": "array", "prefixItems": kinds, "minItems": len(kinds), "maxItems": len(kinds)}
    return {"oneOf": [named, ordered]}


def _feature_schema(feature: Feature, number: dict[str, Any]) -> dict[str, Any]:
    return {"type": "string", "enum": list(feature.categories)} if feature.categories else number


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _array(items: dict[str, Any], size: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": size, "maxItems": size}
