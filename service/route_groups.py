"""Which group every route is in: who may predict need not be the one who may look, or who may change what is served.

Method and path decide, as the router sees them: the path percent-decoded once, compared letter by letter. What is not
known here counts as reading if it is GET or HEAD, else as managing: a route that somebody adds is closed until it is
listed.
"""

from __future__ import annotations

import re
from enum import StrEnum

from service.protocols.paths import DEFAULT_PATHS, PATTERNS
from service.vertex_environment import VertexEnvironment

NOT_ON_VERTEX = VertexEnvironment()
PLACE = r"(?:/versions/[^/]+|/labels/[^/]+)?"
PREDICTING = re.compile(
    "|".join(
        [
            *(pattern.format(model="[^/]+", place=PLACE) for pattern in PATTERNS.values()),
            *map(re.escape, DEFAULT_PATHS.values()),
        ]
    )
)
ASKING_FOR_HEALTH = re.compile(rf"/ping|/health(?:/[a-z]+)?|/v2/health/[a-z]+|/v2/models/[^/]+{PLACE}/ready")
# Whatever is not listed counts as managing; of these paths it is known that there is something to manage.
MANAGING = re.compile(r"/v2/repository/models/[^/]+/(?:load|unload)|/models/[^/]+/default|/tail-report")
REPOSITORY_INDEX = "/v2/repository/index"  # Triton reads it by POST


class Group(StrEnum):
    """What a route is for. `health` is open to everybody; a key is for any of the others."""

    PREDICT = "predict"
    READ = "read"
    MANAGE = "manage"
    HEALTH = "health"


def is_managing(path: str) -> bool:
    """Say if there is something to manage at a path."""
    return MANAGING.fullmatch(path) is not None


def group_of(method: str, path: str, vertex: VertexEnvironment = NOT_ON_VERTEX) -> Group:
    """Say which group a request is in. Vertex AI names two more paths: where it predicts, and asks for health."""
    if not path:
        return Group.MANAGE
    if method in {"GET", "HEAD"}:
        is_health = path == vertex.health_route or ASKING_FOR_HEALTH.fullmatch(path)
        return Group.HEALTH if is_health else Group.READ
    if method != "POST":
        return Group.MANAGE
    if path == vertex.predict_route or PREDICTING.fullmatch(path):
        return Group.PREDICT
    return Group.READ if path == REPOSITORY_INDEX else Group.MANAGE
