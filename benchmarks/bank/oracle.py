"""The oracle: onnx.reference, in NumPy and without an optimiser, and the two operators that it gets wrong or lacks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as WithoutGroups

Values = dict[str, NDArray[Any]]


class ConvTranspose(WithoutGroups):
    """The reference's fails on groups: here each group is one call of it."""

    op_domain = ""

    def _run(  # type: ignore[override]  # attributes go through as they come
        self,
        X: Any,  # noqa: N803 - the operator's own names
        W: Any,  # noqa: N803
        B: Any = None,  # noqa: N803
        group: int | None = None,
        **attributes: Any,
    ) -> Any:
        """Split channels, transpose each group's convolution, put the channels together again."""
        num_groups = group or 1
        parts = [
            super(ConvTranspose, self)._run(x, w, None, group=1, **attributes)[0]  # type: ignore[no-untyped-call]
            for x, w in zip(np.split(X, num_groups, axis=1), np.split(W, num_groups, axis=0), strict=True)
        ]
        y = np.concatenate(parts, axis=1)
        return (y if B is None else y + B.reshape(-1, *[1] * (y.ndim - 2)),)


class BatchNormalization(OpRun):
    """As it was up to opset 8, with one statistic for each element where `spatial` is 0."""

    op_domain = ""
    op_schema = onnx.defs.get_schema("BatchNormalization", 7)

    def _run(  # noqa: PLR0913, PLR0917 - the operator's own inputs
        self,
        x: Any,
        scale: Any,
        offset: Any,
        mean: Any,
        var: Any,
        epsilon: float | None = None,
        spatial: int | None = None,
        momentum: float | None = None,  # noqa: ARG002
    ) -> Any:
        """(x − μ) / √(σ² + ε) · γ + β."""
        shape = scale.shape if spatial == 0 else (-1, *[1] * (x.ndim - 2))
        scale, offset, mean, var = (each.reshape(shape) for each in (scale, offset, mean, var))
        return ((x - mean) / np.sqrt(var + (1e-5 if epsilon is None else epsilon)) * scale + offset,)


def evaluate(model: onnx.ModelProto, feeds: Values) -> Values:
    """Every value of the main graph by its name, weights too, as the standard defines them."""
    opset = next(one.version for one in model.opset_import if not one.domain)
    replaced = [ConvTranspose, *([BatchNormalization] if opset < 9 else [])]
    with np.errstate(all="ignore"):
        evaluator = ReferenceEvaluator(model, new_ops=replaced)
        results = cast("Values", evaluator.run(None, feeds, intermediate=True))
    return {name: np.asarray(value) for name, value in results.items() if name and value is not None}


def answers(model: onnx.ModelProto, feeds: Values) -> list[NDArray[Any]]:
    """The model's outputs."""
    values = evaluate(model, feeds)
    return [values[output.name] for output in model.graph.output]
