"""What the server knows about itself: which models, what they take, where they came from, an example of each."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from service.protocols.directory import Directory, Served
from service.repository import ServedModel


def foldserve_version() -> str:
    """Give the installed version of foldserve."""
    try:
        return version("foldserve")
    except PackageNotFoundError:
        return "unknown"


def describe_server(directory: Directory) -> dict[str, Any]:
    """Say what is served, and where to read on."""
    return {
        "name": "foldserve",
        "version": foldserve_version(),
        "models": [
            {
                "name": name,
                "version": model.served.model.version,
                "versions": [version for version in model.versions if version],
                "labels": model.labels,
                "predict": f"/models/{name}/predict",
            }
            for name, model in directory.table.models.items()
        ],
        "default_model": directory.table.default,
        "links": {"docs": "/docs", "openapi": "/openapi.json", "models": "/models", "metrics": "/metrics"},
    }


def describe_model(served: Served) -> dict[str, Any]:
    """Say all there is to know about a model, with an example that can be posted and the answer to expect."""
    model = served.model
    return {
        "name": model.name,
        "version": model.version,
        "predict": f"/models/{model.name}/predict",
        "signature": model.predictor.signature,
        "example": {"request": example_request(model), "answer": json.loads(served.example_answer.body)},
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
