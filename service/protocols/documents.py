"""What the server says about itself: which models, what they take, where they came from, and if all is well."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.metrics import Metrics
from service.protocols.directory import Directory
from service.protocols.lane import Lane
from service.repository import ServedModel


def foldserve_version() -> str:
    """Give the installed version of foldserve."""
    try:
        return version("foldserve")
    except PackageNotFoundError:
        return "unknown"


def add_documents(app: FastAPI, directory: Directory, metrics: Metrics) -> None:
    """Declare every route that answers GET."""
    _add_descriptions(app, directory)
    _add_examples(app, directory)
    _add_health(app, directory)

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def render_metrics() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _add_descriptions(app: FastAPI, directory: Directory) -> None:
    @app.get("/", summary="What is served here")
    async def index() -> Response:
        return _json(describe_server(directory))

    @app.get("/model", summary="The default model: what it takes, and where it comes from")
    async def default_model() -> Response:
        return _json(describe_model(directory.find_default()))

    @app.get("/models", summary="All models")
    async def models() -> Response:
        return _json([describe_model(lane) for lane in directory.lanes.values()])

    @app.get("/models/{name}", summary="One model: what it takes, and where it comes from")
    async def model(name: str) -> Response:
        return _json(describe_model(directory.find(name)))


def _add_examples(app: FastAPI, directory: Directory) -> None:
    @app.get("/model/example", summary="A body that can be posted to /predict as it is")
    async def default_example() -> Response:
        return _json(example_request(directory.find_default().endpoint.model))

    @app.get("/models/{name}/example", summary="A body that can be posted to this model as it is")
    async def example(name: str) -> Response:
        return _json(example_request(directory.find(name).endpoint.model))


def _add_health(app: FastAPI, directory: Directory) -> None:
    @app.head("/health/live", include_in_schema=False)
    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> Response:
        return _json({"live": True})

    @app.head("/health/ready", include_in_schema=False)
    @app.get("/health/ready", summary="Does it want requests?")
    async def ready() -> Response:
        return _json({"ready": directory.ready}, status=200 if directory.ready else 503)


def describe_server(directory: Directory) -> dict[str, Any]:
    """Say what is served, and where to read on."""
    return {
        "name": "foldserve",
        "version": foldserve_version(),
        "models": [
            {"name": name, "version": lane.endpoint.model.version, "predict": f"/models/{name}/predict"}
            for name, lane in directory.lanes.items()
        ],
        "default_model": directory.default.endpoint.model.name if directory.default else None,
        "links": {"docs": "/docs", "openapi": "/openapi.json", "models": "/models", "metrics": "/metrics"},
    }


def describe_model(lane: Lane) -> dict[str, Any]:
    """Say all there is to know about a model, with an example that can be posted and the answer to expect."""
    model = lane.endpoint.model
    return {
        "name": model.name,
        "version": model.version,
        "predict": f"/models/{model.name}/predict",
        "signature": model.predictor.signature,
        "example": {"request": example_request(model), "answer": json.loads(lane.example_answer.body)},
        "device": model.predictor.placement,
        "self_check": model.self_check,
        "batching": model.batching,
        **_describe_origin(model),
    }


def example_request(model: ServedModel) -> dict[str, Any]:
    """Give a body for the model: the first recorded example, or zeros where there is none."""
    if model.examples:
        return {"instance": model.examples[0].instance}
    spec = model.predictor.signature.input
    return {"instance": np.zeros(spec.shape, spec.dtype).ravel().tolist()}


def _describe_origin(model: ServedModel) -> dict[str, Any]:
    manifest = model.manifest
    if manifest is None:
        return {"statistics": None, "fold": None, "parity": None, "precision": None, "training": None}
    return {
        "statistics": manifest.statistics,
        "fold": manifest.fold,
        "parity": manifest.parity,
        "precision": manifest.precision or {"name": "fp32"},
        "training": manifest.training,
        "producer": manifest.producer,
        "created": manifest.created,
        "files": manifest.files,
    }


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
