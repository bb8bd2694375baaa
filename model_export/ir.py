"""The one door to onnx-ir: imports it without sympy, which it needs for sums of symbolic lengths only.

sympy takes 0.6 s to import, more than all else that `fold` needs; so it is loaded when it is first used, by the
standard library's lazy loader. That must be arranged before onnx-ir is imported: therefore it happens at import,
against the rule of the house, and every other module takes `ir` from here.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader

LATE = frozenset({"sympy", "onnx_ir._symbolic_shapes"})


class _LateFinder(MetaPathFinder):
    """Finds the modules that are to be loaded when they are first used."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        spec = PathFinder.find_spec(fullname, path) if fullname in LATE else None  # type: ignore[arg-type]
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


_finder = _LateFinder()
sys.meta_path.insert(0, _finder)
import onnx_ir as ir  # noqa: E402

sys.meta_path.remove(_finder)

__all__ = ["ir"]
