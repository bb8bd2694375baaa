"""Routes that change what is loaded: by Triton's extension of the Open Inference Protocol, and rolling back by our own.

What a request may carry (files, configurations) is refused: models come from the folder, and from nowhere else.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from service.errors import BodyTooLarge, BundleError, DeviceUnavailable, RequestInvalid
from service.management import Manager
from service.open_inference_catalog import OpenInferenceCatalog
from service.protocols.http_errors import answer_error
from service.protocols.openapi import error_responses
from service.protocols.responses import to_json, to_response

MAX_BODY_BYTES = 64 * 1024
TAGS: list[Any] = ["models: load, unload, roll back"]
VERSION_EXPECTED = '{"version": "<a number>"}'


class VersionChoice(msgspec.Struct, forbid_unknown_fields=True):
    """Which version is to answer for its model."""

    version: str | int


def add_management_routes(app: FastAPI, catalog: OpenInferenceCatalog, manager: Manager) -> None:
    """Declare the routes."""
    _add_repository(app, catalog)
    _add_choice(app, manager)


def _add_repository(app: FastAPI, catalog: OpenInferenceCatalog) -> None:

    @app.post("/v2/repository/index", tags=TAGS, summary="Every version that was found, and its state")
    async def index(request: Request) -> Response:
        only_ready = bool((await _read_object(request)).get("ready", False))
        return to_json(catalog.list_repository(only_ready=only_ready))

    @app.post(
        "/v2/repository/models/{name}/load",
        tags=TAGS,
        summary="Look for new versions of a model, and load them",
        response_class=Response,
        responses=error_responses(400, 401, 403, 404),
    )
    async def load(name: str, request: Request) -> Response:
        _refuse_parameters(await _read_object(request))
        try:
            await catalog.load(name)
        except (BundleError, DeviceUnavailable) as err:
            return to_response(answer_error(err, {type(err): 400}))
        return Response()

    @app.post(
        "/v2/repository/models/{name}/unload",
        tags=TAGS,
        summary="Let go all versions of a model",
        response_class=Response,
        responses=error_responses(400, 401, 403, 404),
    )
    async def unload(name: str, request: Request) -> Response:
        await _read_object(request)
        await catalog.unload(name)
        return Response()


def _add_choice(app: FastAPI, manager: Manager) -> None:
    body = {"content": {"application/json": {"schema": _CHOICE_SCHEMA}}, "required": True}

    @app.put(
        "/models/{name}/default",
        tags=TAGS,
        summary="Have one version answer for its model: roll back, at once",
        openapi_extra={"requestBody": body},
        responses=error_responses(400, 401, 403, 404),
    )
    async def choose(name: str, request: Request) -> Response:
        try:
            wanted = msgspec.json.decode(await _read_body(request), type=VersionChoice)
        except (msgspec.MsgspecError, RecursionError) as err:
            raise RequestInvalid(f"expected {VERSION_EXPECTED}: {err}", expected=VERSION_EXPECTED) from err
        return to_json({"name": name, "version": await manager.choose(name, str(wanted.version))})

    @app.delete(
        "/models/{name}/default",
        tags=TAGS,
        summary="Have the highest version answer again",
        responses=error_responses(401, 403, 404),
    )
    async def choose_highest(name: str) -> Response:
        return to_json({"name": name, "version": await manager.choose(name, None)})


_CHOICE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["version"],
    "properties": {"version": {"type": ["string", "integer"]}},
    "additionalProperties": False,
}


async def _read_object(request: Request) -> dict[str, Any]:
    body = await _read_body(request)
    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body.strip() else {}
    except (msgspec.MsgspecError, RecursionError) as err:
        raise RequestInvalid(f"expected a JSON object, or nothing: {err}", expected="a JSON object") from err


async def _read_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"the body is too large: expected at most {MAX_BODY_BYTES} bytes")
    return body


def _refuse_parameters(document: dict[str, Any]) -> None:
    parameters = document.get("parameters") or {}
    if parameters:
        raise RequestInvalid(
            "a model is loaded as it lies in the models folder: `parameters` (config, file:…) are not taken",
            field="parameters",
            expected="none",
        )
