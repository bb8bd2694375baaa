"""What the Open Inference Protocol asks over HTTP beyond predictions, so that /docs shows it; the catalog answers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from service.open_inference_catalog import OpenInferenceCatalog
from service.protocols.openapi import error_responses
from service.protocols.responses import to_json

TAGS: list[Any] = ["Open Inference Protocol v2"]
UNKNOWN = error_responses(404)
PLACES = {"": "a model", "/versions/{version}": "a version"}


def add_open_inference_routes(app: FastAPI, catalog: OpenInferenceCatalog) -> None:
    """Declare the routes."""

    @app.get("/v2", tags=TAGS, summary="The server's metadata")
    async def server() -> Response:
        return to_json(catalog.describe_server())

    @app.get("/v2/models/stats", tags=TAGS, summary="What all models have done")
    async def all_statistics() -> Response:
        return to_json(catalog.list_statistics("", None))

    async def metadata(name: str, version: str | None = None) -> Response:
        return to_json(catalog.describe_metadata(name, version))

    async def ready(name: str, version: str | None = None) -> Response:
        catalog.describe_metadata(name, version)
        return to_json({"name": name, "ready": True})

    async def config(name: str, version: str | None = None) -> Response:
        return to_json(catalog.describe_config(name, version))

    async def statistics(name: str, version: str | None = None) -> Response:
        return to_json(catalog.list_statistics(name, version))

    for place, what in PLACES.items():
        base = f"/v2/models/{{name}}{place}"
        app.get(base, tags=TAGS, summary=f"What {what} takes and gives", responses=UNKNOWN)(metadata)
        app.get(f"{base}/ready", tags=TAGS, summary=f"Is {what} ready?", responses=UNKNOWN)(ready)
        app.get(f"{base}/config", tags=TAGS, summary=f"How {what} is configured", responses=UNKNOWN)(config)
        app.get(f"{base}/stats", tags=TAGS, summary=f"What {what} has done", responses=UNKNOWN)(statistics)
