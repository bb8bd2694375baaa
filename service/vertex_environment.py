"""What Vertex AI tells a container by its environment: the port, the two routes, and where the model lies.

All names start with AIP_, and count only where AIP_MODE is PREDICTION.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.errors import SettingsInvalid

PREDICTION = "PREDICTION"
USUAL_PORT = 8080


@dataclass(frozen=True, kw_only=True)
class VertexEnvironment:
    """The values of Vertex AI. Where `mode` is not PREDICTION the container does not run there, and all else is unset.

    `storage_uri` is a gs:// address, or empty where the image holds the model.
    """

    mode: str = ""
    port: int = USUAL_PORT
    health_route: str = ""
    predict_route: str = ""
    storage_uri: str = ""

    @property
    def is_predicting(self) -> bool:
        """Whether Vertex AI runs this container, to predict."""
        return self.mode == PREDICTION


def read_vertex_environment(values: Mapping[str, str]) -> VertexEnvironment:
    """Read the AIP_ values out of an environment.

    Raises:
        SettingsInvalid: the mode is PREDICTION, and a route is not set, or a value is of no use.
    """
    mode = values.get("AIP_MODE", "")
    if mode != PREDICTION:
        return VertexEnvironment(mode=mode)
    return VertexEnvironment(
        mode=mode,
        port=_read_port(values.get("AIP_HTTP_PORT", "")),
        health_route=_read_route(values, "AIP_HEALTH_ROUTE"),
        predict_route=_read_route(values, "AIP_PREDICT_ROUTE"),
        storage_uri=values.get("AIP_STORAGE_URI", ""),
    )


def _read_port(text: str) -> int:
    if not text:
        return USUAL_PORT
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 1 << 16):
        raise SettingsInvalid(f"AIP_HTTP_PORT: expected a port from 1 to 65535, got {text[:40]!r}")
    return int(text)


def _read_route(values: Mapping[str, str], name: str) -> str:
    route = values.get(name, "")
    if not route.startswith("/"):
        got = repr(route[:40]) if route else "nothing"
        raise SettingsInvalid(
            f"{name}: AIP_MODE is {PREDICTION}, so a path that starts with '/' is expected; got {got}. Set the route "
            "where the model is uploaded to Vertex AI"
        )
    return route
