"""Finding what a user has written: `package.module:name`, from the current folder or from what is installed."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from model_export.errors import ExportError

NAMED = re.compile(r"[A-Za-z_][\w.]*:\w*")


def is_ones_own(name: str) -> bool:
    """Whether `name` has the form `package.module:name`, and is not a file that happens to."""
    return NAMED.fullmatch(name) is not None and not Path(name).exists()


def find_ones_own(name: str, *, flag: str, kind: str, error: type[ExportError]) -> Callable[..., object]:
    """What `name` names, which can be called. `flag` and `kind` say in an error what was looked for, and what for.

    Raises:
        ExportError: of the type `error`: the module can not be imported, or has nothing of that name to call.
    """
    module_name, _, wanted = name.partition(":")
    module = _import(module_name, f"{flag} {name}", error)
    found = getattr(module, wanted, None)
    if not callable(found):
        public = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        close = difflib.get_close_matches(wanted, public, n=1)
        guess = f" Did you mean {module_name}:{close[0]}?" if close else ""
        raise error(f"{module_name} has no {kind} {wanted!r}.{guess} It has: {', '.join(public)}")
    return found  # type: ignore[no-any-return]  # what it takes and returns is seen when it is called


def _import(module_name: str, asked: str, error: type[ExportError]) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as err:
        raise error(
            f"{asked}: can not import {module_name!r} from {Path.cwd()} or from what is installed: {err!r}"
        ) from err


@contextlib.contextmanager
def current_folder_importable() -> Iterator[None]:
    """Let a block import from the current folder, also what the user's code imports when it runs."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before
