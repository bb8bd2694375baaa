"""Opens gRPC beside HTTP, if it is wanted: the same lanes, the same gate, the same catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import SettingsInvalid
from service.gate import Gate
from service.open_inference_catalog import OpenInferenceCatalog
from service.protocols.answer import Answer
from service.protocols.contract import Headers
from service.protocols.directory import Directory
from service.protocols.http_errors import answer_error
from service.protocols.lane import Lane
from service.protocols.paths import GRPC
from service.settings import Settings

if TYPE_CHECKING:
    from service.open_inference_grpc.server import GrpcServer

# How a call would be asked for over HTTP: the gate knows routes.
ROUTES = {
    "ModelInfer": ("POST", "/v2/models/any/infer"),
    "RepositoryIndex": ("POST", "/v2/repository/index"),
    "RepositoryModelLoad": ("POST", "/v2/repository/models/any/load"),
    "RepositoryModelUnload": ("POST", "/v2/repository/models/any/unload"),
    "ServerLive": ("GET", "/v2/health/live"),
    "ServerReady": ("GET", "/v2/health/ready"),
    "ModelReady": ("GET", "/v2/models/any/ready"),
    "Check": ("GET", "/v2/health/ready"),
}
READING = ("GET", "/v2/models/any")
HERE = ((b"host", b"localhost"),)  # gRPC is spoken by no browser


async def open_grpc(
    settings: Settings, port: int, directory: Directory, gate: Gate, catalog: OpenInferenceCatalog
) -> GrpcServer:
    """Listen for gRPC, in the running event loop.

    Raises:
        SettingsInvalid: its packages are not installed, or nobody can listen there.
    """
    try:
        from service.open_inference_grpc.server import GrpcOptions, Offer, start_grpc
    except ImportError as err:
        raise SettingsInvalid(f"--grpc-port needs more packages ({err}): pip install 'foldserve[grpc]'") from err

    def find(name: str, version: str | None) -> Lane:
        return directory.find(name, version).lanes[GRPC] if name else directory.find_default().lanes[GRPC]

    def permit(call: str, headers: Headers) -> Answer | None:
        refusal = gate.refuse(*ROUTES.get(call, READING), headers, HERE)
        return None if refusal is None else answer_error(refusal)

    options = GrpcOptions(
        host=settings.host,
        port=port,
        max_message_bytes=settings.max_body_bytes,
        share_port=settings.workers > 1,
    )
    return await start_grpc(options, Offer(find=find, catalog=catalog, permit=permit))
