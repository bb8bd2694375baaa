"""A gRPC server in the event loop that HTTP is served in: on its own port, stopped with grace.

A client's deadline is the request's; a call that its client has given up is withdrawn. What is longer than allowed,
packed or unpacked, gRPC refuses itself, before anybody here sees it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio

from service.errors import FoldserveError, SettingsInvalid
from service.open_inference_grpc.answering import CALLS, answer_call
from service.open_inference_grpc.catalog import Catalog
from service.open_inference_grpc.inferring import Find, Inference
from service.open_inference_grpc.messages import INFERENCE
from service.open_inference_grpc.statuses import code_of_answer, explain, write_trailer
from service.open_inference_grpc.writing import MEDIA_TYPE
from service.protocols.answer import Answer
from service.protocols.bugs import answer_bug
from service.protocols.contract import Headers
from service.protocols.http_errors import STATUS_ELSEWHERE, answer_error
from service.request_ids import name_request

# By a call's name, such as `ModelInfer` or `RepositoryModelLoad`, and its headers: a refusal, or None.
Permit = Callable[[str, Headers], Answer | None]
Respond = Callable[[bytes, Headers], Awaitable[Answer]]

FIELDS = {
    "authorization": "authorization",
    "x-api-key": "api_key",
    "x-request-id": "request_id",
    "traceparent": "traceparent",
}
SHORTEST_SECONDS = 1e-6  # what is over is no number that a lane reads
KEEPALIVE_SECONDS = 60  # after so long without a byte, a client is asked if it is still there
KEEPALIVE_TIMEOUT_SECONDS = 20
SHORTEST_PING_SECONDS = 5  # clients that ping more often are sent away
MAX_STREAMS = 1000  # calls under way on one connection


@dataclass(frozen=True, kw_only=True)
class GrpcOptions:
    """Where to listen, and how much to take.

    `max_calls` are those under way at once, on all connections; `grace_seconds` is how long those under way may take
    when the server stops. With `share_port` other processes may listen on the same port; else a taken one is refused.
    """

    host: str
    port: int
    max_message_bytes: int
    max_calls: int = 1000
    grace_seconds: float = 30.0
    share_port: bool = False


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the server answers from: lanes for predictions, the catalog for all else, and who may ask."""

    find: Find
    catalog: Catalog
    permit: Permit


class GrpcServer:
    """A server that listens. `port` is the one that it got."""

    def __init__(self, server: Any, port: int, grace_seconds: float) -> None:
        self.port = port
        self._server = server
        self._grace_seconds = grace_seconds

    async def stop(self) -> None:
        """Take no more calls, let those under way finish, and cancel what takes longer than the grace."""
        await self._server.stop(self._grace_seconds)


async def start_grpc(options: GrpcOptions, offer: Offer) -> GrpcServer:
    """Listen, in the running event loop.

    Raises:
        SettingsInvalid: nobody can listen there.
    """
    server = grpc.aio.server(options=_channel_options(options), maximum_concurrent_rpcs=options.max_calls)
    server.add_generic_rpc_handlers(_handlers(offer))
    port = _bind(server, options)
    await server.start()
    return GrpcServer(server, port, options.grace_seconds)


def _bind(server: Any, options: GrpcOptions) -> int:
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.port}"
    try:
        port = int(server.add_insecure_port(address))
    except RuntimeError as err:
        raise SettingsInvalid(
            f"gRPC can not listen on {address}: is the port taken, the address this machine's?"
        ) from err
    return port


def _channel_options(options: GrpcOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.so_reuseport", int(options.share_port)),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", SHORTEST_PING_SECONDS * 1000),
    ]


def _handlers(offer: Offer) -> Iterable[Any]:
    inference = Inference(offer.find)
    for service, calls in CALLS.items():
        handlers = {
            call: _handle(call, offer.permit, partial(_answer_call, service, call, offer.catalog)) for call in calls
        }
        if service == INFERENCE:
            handlers["ModelInfer"] = _handle("ModelInfer", offer.permit, inference.answer)
        yield grpc.method_handlers_generic_handler(service, handlers)


async def _answer_call(service: str, call: str, catalog: Catalog, body: bytes, _: Headers) -> Answer:
    return Answer(200, await answer_call(service, call, catalog, body), content_type=MEDIA_TYPE)


def _handle(call: str, permit: Permit, respond: Respond) -> Any:
    """Make gRPC's handler of one call; it hands over bytes, as what is wrong with them is ours to say."""

    async def handle(body: bytes, context: Any) -> bytes:
        arrived = time.perf_counter()
        headers = read_metadata(context.invocation_metadata(), context.time_remaining())
        answer = permit(call, headers) or await _answer_always(respond, body, headers)
        trailer = write_trailer(answer, arrived, headers.request_id)
        if answer.status != 200:
            await context.abort(code_of_answer(answer), explain(answer), trailer)
        context.set_trailing_metadata(trailer)
        return answer.body

    return grpc.unary_unary_rpc_method_handler(handle)


async def _answer_always(respond: Respond, body: bytes, headers: Headers) -> Answer:
    try:
        return await respond(body, headers)
    except FoldserveError as err:
        return answer_error(err, STATUS_ELSEWHERE)
    except Exception as err:  # noqa: BLE001 - whatever it is, a client waits for an answer
        return answer_bug(err)


def read_metadata(metadata: Iterable[tuple[str, str | bytes]] | None, seconds: float | None) -> Headers:
    """Read a call's metadata as headers, and the seconds that are left to it; there always is a request's name."""
    found = {FIELDS[name]: _to_bytes(value) for name, value in metadata or () if name in FIELDS}
    found["request_id"] = name_request(found.get("request_id", b""))
    if seconds is not None:
        found["timeout"] = b"%.6f" % max(seconds, SHORTEST_SECONDS)
    return Headers(**found)


def _to_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
