"""SageMaker's endpoints of many models, without any transport: what is asked to be loaded, and the documents about it.

    POST   /models                  {"model_name": "a1b2", "url": "/opt/ml/models/a1b2/model"}    409, 507
    GET    /models                  {"models": [{"modelName": "a1b2", "modelUrl": "/opt/…"}]}
    GET    /models/<name>           {"modelName": "a1b2", "modelUrl": "/opt/…"}                   404
    DELETE /models/<name>           empty                                                        404
    POST   /models/<name>/invoke    as /invocations                                              404, 507
    GET    /ping                    empty

They need a repository that loads a directory under a name, unloads a name, and lists what is loaded from where.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec

from service.bundle import NAME_PATTERN
from service.errors import RequestInvalid
from service.protocols.answer import Answer
from service.protocols.http_errors import answer_status
from service.protocols.json_document import Document, check_keys, read_document
from service.wording import describe, quote

EXPECTED = '{"model_name": "…", "url": "…"}'
KEYS = ("model_name", "url")
ALREADY_LOADED = 409
OUT_OF_MEMORY = 507
# Where SageMaker unpacks models; nothing else may be loaded by a request.
MODELS_ROOT = Path("/opt/ml/models")


class Loading(NamedTuple):
    """A model that SageMaker has unpacked and wants to have loaded; `url` is as it was sent, for the documents."""

    name: str
    url: str
    path: Path


class Loaded(NamedTuple):
    """A model that is loaded, and the URL that it was loaded from."""

    name: str
    url: str


def read_loading(body: bytes, root: Path = MODELS_ROOT) -> Loading:
    """Read the body of `POST /models`. The URL must be a path below `root`, whatever links are on the way.

    Raises:
        BodyMalformed: it is not JSON.
        RequestInvalid: it is no such object, or name or URL are not allowed.
    """
    document = read_document(body, EXPECTED)
    check_keys(document, KEYS)
    name, url = (_take_text(document, key) for key in KEYS)
    if not NAME_PATTERN.fullmatch(name):
        wanted = "1 to 64 letters, digits, '_' or '-', the first a letter or digit"
        _refuse("model_name", expected=wanted, got=quote(name))
    return Loading(name, url, _take_path(url, root))


def answer_ping() -> Answer:
    """Say that the container is ready."""
    return Answer(200, b"")


def answer_done(*, name: str, did: str) -> Answer:
    """Say that a model was `loaded` or `unloaded`."""
    return Answer(200, msgspec.json.encode({"status": f"{did} model {name!r}"}))


def answer_already_loaded(name: str) -> Answer:
    """Say that a model of this name is loaded; SageMaker takes it as a success."""
    return answer_status(ALREADY_LOADED, f"model {name!r} is loaded already: unload it first to load another")


def answer_out_of_memory(name: str) -> Answer:
    """Say that a model does not fit; SageMaker then unloads another one, and asks again."""
    return answer_status(OUT_OF_MEMORY, f"there is not enough memory for model {name!r}: unload another one first")


def answer_model(model: Loaded) -> Answer:
    """Describe one loaded model."""
    return Answer(200, msgspec.json.encode(_describe(model)))


def answer_models(models: Iterable[Loaded]) -> Answer:
    """List what is loaded, by name; all on one page."""
    return Answer(200, msgspec.json.encode({"models": [_describe(model) for model in sorted(models)]}))


def _describe(model: Loaded) -> dict[str, str]:
    return {"modelName": model.name, "modelUrl": model.url}


def _take_text(document: Document, key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        got = "nothing" if key not in document else describe(value)
        raise RequestInvalid(f"{key}: expected a text, got {got}", field=key, expected=EXPECTED, got=got)
    return value


def _take_path(url: str, root: Path) -> Path:
    """Take the path out of a plain path or a file:// URL, and make sure that it does not leave the root."""
    try:
        parts = urllib.parse.urlsplit(url)
        path = Path(urllib.parse.unquote(parts.path) if parts.scheme == "file" else url)
        is_below = path.is_absolute() and path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL, a name that is too long, a circle of links
        _refuse("url", expected=f"a path below {root}", got=quote(url))
    if not is_below:
        _refuse("url", expected=f"a path below {root}", got=quote(url))
    return path.resolve()


def _refuse(field: str, *, expected: str, got: str) -> NoReturn:
    raise RequestInvalid(f"{field}: expected {expected}, got {got}", field=field, expected=expected, got=got)
