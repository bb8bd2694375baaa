"""What TensorFlow Serving's REST API tells by GET: the state of a model's versions, and what it takes and gives."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response

from service.protocols.directory import LOADING, READY, UNAVAILABLE, Directory, State
from service.protocols.openapi import error_responses
from service.protocols.responses import to_json
from service.protocols.tensorflow import VersionStatus, describe_metadata, describe_status

TAGS: list[Any] = ["TensorFlow Serving"]
UNKNOWN = error_responses(404)
STATES = {READY: "AVAILABLE", LOADING: "LOADING", UNAVAILABLE: "END"}
MAX_VERSIONS = 5  # of those that are not loaded any more there may be many


def add_tensorflow_routes(app: FastAPI, directory: Directory) -> None:
    """Declare the routes."""
    base = "/v1/models/{name}"
    places = {"": "a model", "/versions/{version}": "a version", "/labels/{label}": "a labelled version"}

    async def status(name: str, version: str | None = None, label: str | None = None) -> Response:
        one = None
        if version is not None or label is not None or not _states_of(name, directory):
            one = directory.find(name, version, label).model.version
        return to_json(describe_status(_describe(name, one, directory)))

    async def metadata(name: str, version: str | None = None, label: str | None = None) -> Response:
        return to_json(describe_metadata(directory.find(name, version, label).model))

    for place, what in places.items():
        title = f"The state of {what}"
        app.get(f"{base}{place}", tags=TAGS, summary=title, responses=UNKNOWN)(status)
        title = f"What {what} takes and gives"
        app.get(f"{base}{place}/metadata", tags=TAGS, summary=title, responses=UNKNOWN)(metadata)


def _states_of(name: str, directory: Directory) -> list[State]:
    return [state for state in directory.states if state.name == name]


def _describe(name: str, version: str | None, directory: Directory) -> list[VersionStatus]:
    """Describe one version, or the newest ones, newest first."""
    states = [state for state in _states_of(name, directory) if version is None or state.version == version]
    return [_describe_one(state) for state in reversed(states)][:MAX_VERSIONS]


def _describe_one(state: State) -> VersionStatus:
    has_failed = state.state == UNAVAILABLE and not state.reason.startswith(("not loaded", "unloaded"))
    return VersionStatus(
        version=state.version,
        state=STATES.get(state.state, "UNLOADING"),  # type: ignore[arg-type]
        error_code="FAILED_PRECONDITION" if has_failed else "OK",
        error_message=state.reason if has_failed else "",
    )
