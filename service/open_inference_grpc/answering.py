"""The calls that are answered from the catalog: each takes a message and gives the document of its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.json_format import ParseDict

from service.errors import ModelUnknown, RequestInvalid
from service.open_inference_grpc.catalog import Catalog, Document
from service.open_inference_grpc.messages import HEALTH, INFERENCE, parse, types_of_call
from service.wording import quote

# From a message to the document of its answer.
Call = Callable[[Catalog, Any], Awaitable[Document]]
HARMLESS_AT_UNLOAD = {"unload_dependents"}  # nothing here depends on a model


async def answer_call(service: str, call: str, catalog: Catalog, body: bytes) -> bytes:
    """Answer one of `CALLS`: from the bytes of its message to those of the answer.

    Raises:
        FoldserveError: the message is none, or the catalog refuses.
    """
    request_type, response_type = types_of_call(service, call)
    document = await CALLS[service][call](catalog, parse(request_type, body))
    # Over HTTP a document may say more than the message has fields for.
    response = ParseDict(dict(document), response_type(), ignore_unknown_fields=True)
    written: bytes = response.SerializeToString()
    return written


async def _server_live(catalog: Catalog, _: Any) -> Document:
    return {"live": catalog.is_live()}


async def _server_ready(catalog: Catalog, _: Any) -> Document:
    return {"ready": catalog.is_ready()}


async def _server_metadata(catalog: Catalog, _: Any) -> Document:
    return catalog.describe_server()


async def _model_ready(catalog: Catalog, request: Any) -> Document:
    return {"ready": catalog.is_model_ready(*_which(request))}


async def _model_metadata(catalog: Catalog, request: Any) -> Document:
    return catalog.describe_metadata(*_which(request))


async def _model_config(catalog: Catalog, request: Any) -> Document:
    return {"config": catalog.describe_config(*_which(request))}


async def _model_statistics(catalog: Catalog, request: Any) -> Document:
    return catalog.list_statistics(*_which(request))


async def _repository_index(catalog: Catalog, request: Any) -> Document:
    _refuse_repository(request)
    return {"models": catalog.list_repository(only_ready=request.ready)}


async def _repository_model_load(catalog: Catalog, request: Any) -> Document:
    _refuse_repository(request)
    _refuse_parameters(request, harmless=set())
    await catalog.load(request.model_name)
    return {}


async def _repository_model_unload(catalog: Catalog, request: Any) -> Document:
    _refuse_repository(request)
    _refuse_parameters(request, harmless=HARMLESS_AT_UNLOAD)
    await catalog.unload(request.model_name)
    return {}


async def _check_health(catalog: Catalog, request: Any) -> Document:
    if request.service not in {"", INFERENCE}:
        raise ModelUnknown(
            f"service: expected {INFERENCE!r} or none, got {quote(request.service)}",
            field="service",
            expected=INFERENCE,
            got=quote(request.service),
        )
    return {"status": "SERVING" if catalog.is_ready() else "NOT_SERVING"}


def _which(request: Any) -> tuple[str, str | None]:
    return request.name, request.version or None


def _refuse_repository(request: Any) -> None:
    if request.repository_name:
        raise RequestInvalid(
            f"repository_name: expected none, as there is one repository; got {quote(request.repository_name)}",
            field="repository_name",
            expected="none",
            got=quote(request.repository_name),
        )


def _refuse_parameters(request: Any, *, harmless: set[str]) -> None:
    """Refuse what would make another model of the one that lies there, such as a configuration or files."""
    for name in sorted(set(request.parameters) - harmless):
        raise RequestInvalid(
            f"parameters: expected none, as a model is served as it lies there; got {quote(name)}",
            field="parameters",
            expected="none",
            got=quote(name),
        )


CALLS: dict[str, dict[str, Call]] = {
    INFERENCE: {
        "ServerLive": _server_live,
        "ServerReady": _server_ready,
        "ServerMetadata": _server_metadata,
        "ModelReady": _model_ready,
        "ModelMetadata": _model_metadata,
        "ModelConfig": _model_config,
        "ModelStatistics": _model_statistics,
        "RepositoryIndex": _repository_index,
        "RepositoryModelLoad": _repository_model_load,
        "RepositoryModelUnload": _repository_model_unload,
    },
    HEALTH: {"Check": _check_health},
}
