"""What the server says about itself: which models, what they take, where they came from, and if all is well."""

from __future__ import annotations

from fastapi import FastAPI, Response

from service.metrics import Metrics
from service.protocols.descriptions import describe_model, describe_server, example_request
from service.protocols.directory import Directory
from service.protocols.openapi import error_responses
from service.protocols.probes import answer_live, answer_metrics, answer_ready
from service.protocols.responses import to_json, to_response

UNKNOWN = error_responses(404)


def add_documents(app: FastAPI, directory: Directory, metrics: Metrics) -> None:
    """Declare every route that answers GET."""
    _add_descriptions(app, directory)
    _add_examples(app, directory)
    _add_health(app, directory)

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def render_metrics() -> Response:
        return to_response(answer_metrics(metrics))


def _add_descriptions(app: FastAPI, directory: Directory) -> None:
    @app.get("/", summary="What is served here")
    async def index() -> Response:
        return to_json(describe_server(directory))

    @app.get("/model", summary="The default model: what it takes, and where it comes from", responses=UNKNOWN)
    async def default_model() -> Response:
        return to_json(describe_model(directory.find_default()))

    @app.get("/models", summary="All models")
    async def models() -> Response:
        return to_json([describe_model(served) for served in directory.each()])

    @app.get("/models/{name}", summary="One model: what it takes, and where it comes from", responses=UNKNOWN)
    async def model(name: str) -> Response:
        return to_json(describe_model(directory.find(name)))

    @app.get("/models/{name}/versions/{version}", summary="One version of a model", responses=UNKNOWN)
    async def version(name: str, version: str) -> Response:
        return to_json(describe_model(directory.find(name, version)))

    @app.get(
        "/models/{name}/labels/{label}", summary="The version of a model that a label points to", responses=UNKNOWN
    )
    async def labelled(name: str, label: str) -> Response:
        return to_json(describe_model(directory.find(name, label=label)))


def _add_examples(app: FastAPI, directory: Directory) -> None:
    @app.get("/model/example", summary="A body that can be posted to /predict as it is", responses=UNKNOWN)
    async def default_example() -> Response:
        return to_json(example_request(directory.find_default().model))

    @app.get("/models/{name}/example", summary="A body that can be posted to this model as it is", responses=UNKNOWN)
    async def example(name: str) -> Response:
        return to_json(example_request(directory.find(name).model))


def _add_health(app: FastAPI, directory: Directory) -> None:
    @app.head("/health/live", include_in_schema=False)
    @app.get("/health/live", summary="Is the process alive?")
    async def live() -> Response:
        return to_response(answer_live())

    @app.head("/health/ready", include_in_schema=False)
    @app.get("/health/ready", summary="Does it want requests?")
    async def ready() -> Response:
        return to_response(answer_ready(directory))
