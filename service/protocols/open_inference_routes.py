"""What the Open Inference Protocol asks by GET: metadata of server and models, readiness, configuration, counts."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from service.metrics import BATCH_SUM, BATCHES, OK, STAGE_CELLS, SUM, Metrics
from service.protocols.descriptions import foldserve_version
from service.protocols.directory import Directory, Served
from service.protocols.open_inference.documents import (
    Duration,
    Statistics,
    describe_config,
    describe_metadata,
    describe_server,
    describe_statistics,
    list_statistics,
)
from service.protocols.openapi import error_responses
from service.protocols.responses import to_json

TAGS: list[Any] = ["Open Inference Protocol v2"]
UNKNOWN = error_responses(404)


def add_open_inference_routes(app: FastAPI, directory: Directory, metrics: Metrics) -> None:
    """Declare the routes."""
    _add_metadata(app, directory)
    _add_extensions(app, directory, metrics)


def _add_metadata(app: FastAPI, directory: Directory) -> None:
    @app.get("/v2", tags=TAGS, summary="The server's metadata")
    async def server() -> Response:
        return to_json(describe_server(foldserve_version()))

    @app.get("/v2/models/{name}", tags=TAGS, summary="A model's metadata", responses=UNKNOWN)
    @app.get("/v2/models/{name}/versions/{version}", tags=TAGS, summary="A version's metadata", responses=UNKNOWN)
    async def metadata(name: str, version: str | None = None) -> Response:
        served = directory.find(name, version)
        versions = [one for one in directory.table.models[name].versions if one]
        return to_json(describe_metadata(served.model, versions))

    @app.get("/v2/models/{name}/ready", tags=TAGS, summary="Is the model ready?", responses=UNKNOWN)
    @app.get(
        "/v2/models/{name}/versions/{version}/ready", tags=TAGS, summary="Is the version ready?", responses=UNKNOWN
    )
    async def ready(name: str, version: str | None = None) -> Response:
        directory.find(name, version)
        return to_json({"name": name, "ready": True})


def _add_extensions(app: FastAPI, directory: Directory, metrics: Metrics) -> None:
    @app.get("/v2/models/stats", tags=TAGS, summary="What all models have done")
    async def all_statistics() -> Response:
        models = directory.table.models.values()
        return to_json(list_statistics(_describe(one, metrics) for model in models for one in model.versions.values()))

    @app.get("/v2/models/{name}/config", tags=TAGS, summary="A model's configuration", responses=UNKNOWN)
    @app.get(
        "/v2/models/{name}/versions/{version}/config",
        tags=TAGS,
        summary="A version's configuration",
        responses=UNKNOWN,
    )
    async def config(name: str, version: str | None = None) -> Response:
        return to_json(describe_config(directory.find(name, version).model))

    @app.get("/v2/models/{name}/stats", tags=TAGS, summary="What a model has done", responses=UNKNOWN)
    @app.get(
        "/v2/models/{name}/versions/{version}/stats", tags=TAGS, summary="What a version has done", responses=UNKNOWN
    )
    async def statistics(name: str, version: str | None = None) -> Response:
        served = directory.find(name, version)
        versions = directory.table.models[name].versions.values() if version is None else [served]
        return to_json(list_statistics(_describe(one, metrics) for one in versions))


def _describe(served: Served, metrics: Metrics) -> dict[str, Any]:
    return describe_statistics(served.model, read_statistics(served, metrics))


def read_statistics(served: Served, metrics: Metrics) -> Statistics:
    """Read from the counters what a version has done, in all processes of the server."""
    labels = (served.model.name, served.model.version or "")
    values = next((one.values for one in metrics.counted() if one.labels == labels), None)
    if values is None:
        return Statistics()
    answered, good = sum(values[:SUM]), values[OK]
    stages = {
        stage: Duration(count=int(sum(values[first : first + SUM])), nanoseconds=int(values[first + SUM] * 1e9))
        for stage, first in STAGE_CELLS.items()
    }
    return Statistics(
        num_inferences=int(values[BATCH_SUM]),
        num_executions=int(sum(values[BATCHES:BATCH_SUM])),
        success=Duration(count=int(good), nanoseconds=int(values[SUM] * 1e9)),
        fail=Duration(count=int(answered - good)),
        queue=stages["queue"],
        compute_input=stages["parse"],
        compute_infer=stages["infer"],
        compute_output=stages["encode"],
    )
