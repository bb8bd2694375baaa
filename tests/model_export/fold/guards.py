"""Takes one guard out of the engine: the statement that would refuse, and nothing else, is deleted from a function.

So a test can ask what would have become of a fold without it. A guard is found by words that stand in it; it is an
`if` that raises, a bare `raise`, or the call of a function that refuses.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import pytest


@dataclass(frozen=True)
class Guard:
    """The statement of `function` that holds `words`."""

    function: Callable[..., Any]
    words: str

    def take_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Switch it off, until the test ends."""
        function = self.function
        assert isinstance(function, FunctionType)
        monkeypatch.setattr(function, "__code__", _code_without(function, self.words))

    @property
    def site(self) -> str:
        """Where it stands."""
        return f"{self.function.__module__.removeprefix('model_export.fold.')}.{self.function.__qualname__}"


class _Removal(ast.NodeTransformer):
    """Puts `pass` in the place of the smallest statement that refuses and holds the words."""

    def __init__(self, words: str) -> None:
        self._words = words
        self.num_removed = 0

    def visit_If(self, node: ast.If) -> ast.stmt:
        refuses = len(node.body) == 1 and isinstance(node.body[0], ast.Raise) and not node.orelse
        return self._removed(node) if refuses and self._words in _text(node) else self._inside(node)

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return self._removed(node) if self._words in _text(node) else node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return self._removed(node) if isinstance(node.value, ast.Call) and self._words in _text(node) else node

    def _inside(self, node: ast.If) -> ast.stmt:
        visited = self.generic_visit(node)
        assert isinstance(visited, ast.stmt)
        return visited

    def _removed(self, node: ast.stmt) -> ast.stmt:
        self.num_removed += 1
        return ast.copy_location(ast.Pass(), node)


def _code_without(function: FunctionType, words: str) -> Any:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    removal = _Removal(words)
    removal.visit(tree)
    assert removal.num_removed == 1, f"{removal.num_removed} statements of {function.__qualname__} hold {words!r}"
    namespace: dict[str, Any] = {}
    file = inspect.getsourcefile(function) or "?"
    exec(compile(tree, file, "exec", __future__.annotations.compiler_flag), function.__globals__, namespace)  # noqa: S102
    return namespace[function.__name__].__code__


def refusals_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Where each refusal of a module stands, as `Guard.site` says it, and its source with the `if` around it."""
    place = module.__name__.removeprefix("model_export.fold.")
    tree = ast.parse(inspect.getsource(module))
    for qualname, function in _functions(tree):
        around = {node.body[0]: node for node in ast.walk(function) if isinstance(node, ast.If)}
        for node in ast.walk(function):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and _text(node.exc.func) == "Refused":
                yield f"{place}.{qualname}", _text(around.get(node, node))


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")


def _text(node: ast.AST) -> str:
    return ast.unparse(node)
