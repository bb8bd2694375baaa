"""What machines ask for over and over: is it alive, is it ready, what are the numbers. Needs no FastAPI."""

from __future__ import annotations

import msgspec

from service.metrics import Metrics
from service.protocols.answer import Answer
from service.protocols.directory import Directory


def answer_probe(method: str, path: str, directory: Directory, metrics: Metrics) -> Answer | None:
    """Answer a probe; None if the request is none. HEAD gets what GET does, and who sends it leaves the body out."""
    if method not in {"GET", "HEAD"}:
        return None
    match path:
        case "/health/live":
            return answer_live()
        case "/health/ready":
            return answer_ready(directory)
        case "/metrics":
            return answer_metrics(metrics)
        case _:
            return None


def answer_live() -> Answer:
    """Say that the process lives, by answering at all."""
    return Answer(200, msgspec.json.encode({"live": True}))


def answer_ready(directory: Directory) -> Answer:
    """Say if the server wants to be asked."""
    return Answer(200 if directory.ready else 503, msgspec.json.encode({"ready": directory.ready}))


def answer_metrics(metrics: Metrics) -> Answer:
    """Give the numbers for Prometheus."""
    from service.exposition import CONTENT_TYPE, expose  # needs Prometheus' client, which a prediction does not

    return Answer(200, expose(metrics), content_type=CONTENT_TYPE)
