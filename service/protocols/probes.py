"""What machines ask for over and over: is it alive, is it ready, what are the numbers. Needs no FastAPI."""

from __future__ import annotations

import msgspec

from service.metrics import Metrics
from service.protocols.answer import Answer
from service.protocols.directory import Directory


def answer_probe(method: str, path: str, directory: Directory, health_route: str = "") -> Answer | None:
    """Answer a probe; None if the request is none. HEAD gets what GET does, and who sends it leaves the body out.

    `health_route` is where Vertex AI asks, if it does.
    """
    if method not in {"GET", "HEAD"}:
        return None
    if path in {"/health/live", "/v2/health/live"}:
        return answer_live()
    if path in {"/health/ready", "/v2/health/ready"}:
        return answer_ready(directory)
    if path in {"/ping", "/health"} or path == health_route:
        return answer_ping(directory)
    return None


def answer_live() -> Answer:
    """Say that the process lives, by answering at all."""
    return Answer(200, msgspec.json.encode({"live": True}))


def answer_ready(directory: Directory) -> Answer:
    """Say if the server wants to be asked."""
    ready = directory.ready
    return Answer(200 if ready else 503, msgspec.json.encode({"ready": ready, "live": True}))


def answer_ping(directory: Directory) -> Answer:
    """Say so to SageMaker, MLflow and Vertex AI, which look at the status only."""
    return Answer(200 if directory.ready else 503, b"\n")


def answer_metrics(metrics: Metrics) -> Answer:
    """Give the numbers for Prometheus."""
    from service.exposition import CONTENT_TYPE, expose  # needs Prometheus' client, which a prediction does not

    return Answer(200, expose(metrics), content_type=CONTENT_TYPE)
