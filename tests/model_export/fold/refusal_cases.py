"""One case for each refusal of the engine: the smallest graph that it stops, and what would become of it without.

wrong     the answers would be others, and the check of each fold in float64 would measure by how much
uncheckable  they would be others, or there would be none, and that check could not be run
unseen    they would be others, or there would be none, and that check would see nothing wrong
crash     the fold of the whole model would end in a traceback instead of a reason
twice     another refusal would stop the same fold, or, where the model is not valid, that check
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest

from tests.model_export.fold.graphs import GraphBuilder
from tests.model_export.fold.guards import Guard

Without = Literal["wrong", "uncheckable", "unseen", "crash", "twice"]
Rule = Literal["previous", "next", "parallel", "merge", "join"]
Build = Callable[[GraphBuilder], ir.Model]
SwitchOff = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`rule` would fold what is called `subject`, were it not for `guard`.

    sizes     the lengths of symbolic axes
    meaning   what a model of an old opset means, in one that the oracle knows
    """

    guard: Guard
    build: Build
    rule: Rule
    without: Without
    subject: str = "bn"
    sizes: Mapping[str, int] = field(default_factory=dict)
    switch_off: SwitchOff | None = None
    meaning: Callable[[ir.Model], ir.Model] | None = None

    def __str__(self) -> str:
        return self.build.__name__.lstrip("_")

    def take_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Switch the guard off."""
        (self.switch_off or self.guard.take_out)(monkeypatch)

    def model(self) -> ir.Model:
        """The graph, in float64, with seeded weights."""
        return self.build(GraphBuilder(np.random.default_rng(0)))


CASES: list[Case] = []


def stops(function: Callable[..., Any], words: str, rule: Rule, without: Without, **options: Any) -> Callable[..., Any]:
    """Make the function below, which draws a graph, a case of the guard of `function` that holds these words."""

    def register(build: Build) -> Build:
        guard = Guard(function, words)
        CASES.append(Case(guard=guard, build=build, rule=rule, without=without, **options))
        return build

    return register


def rule_instead(table: dict[str, Any], op: str, rule: Callable[..., Any]) -> SwitchOff:
    """Give the operator a rule, as somebody would who did not know better."""
    return lambda monkeypatch: monkeypatch.setitem(table, op, rule)
