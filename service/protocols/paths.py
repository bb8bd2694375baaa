"""At which paths each protocol predicts: the one list, for the table of lanes, for documents and for permissions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OWN, OPEN_INFERENCE, TENSORFLOW, INVOCATIONS, VERTEX = "own", "open-inference", "tensorflow", "invocations", "vertex"
GRPC = "open-inference-grpc"  # it has no paths
# {model} is a name, {place} is empty, /versions/<number> or /labels/<label>.
PATTERNS = {
    OWN: "/models/{model}{place}/predict",
    OPEN_INFERENCE: "/v2/models/{model}{place}/infer",
    TENSORFLOW: "/v1/models/{model}{place}:predict",
    INVOCATIONS: "/models/{model}{place}/invocations",
}
DEFAULT_PATHS = {OWN: "/predict", INVOCATIONS: "/invocations"}


@dataclass(frozen=True)
class Protocols:
    """Where the default model predicts beyond the usual paths: Vertex AI says itself at which one."""

    vertex_path: str | None = None


def list_paths(protocols: Protocols, name: str, place: str, *, is_default: bool) -> Iterator[tuple[str, str]]:
    """List the paths that mean one place of one model, with the protocol spoken there."""
    for protocol, pattern in PATTERNS.items():
        yield protocol, pattern.format(model=name, place=place)
    if is_default and not place:
        for protocol, path in DEFAULT_PATHS.items():
            yield protocol, path
        if protocols.vertex_path is not None:
            yield VERTEX, protocols.vertex_path
