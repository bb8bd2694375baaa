"""One case of the bank: a small graph around BatchNorms, and what must become of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict, Unpack

import onnx

from benchmarks.bank.draw import Draw, DtypeName, make_draw
from benchmarks.bank.graph import Graph

Outcome = Literal["folded", "merged", "kept"]
Drawing = Callable[[Graph], str]  # adds to the graph; answers the name of its last output


class Options(TypedDict, total=False):
    """What a case may say beyond its outcomes; see `Case`."""

    because: Mapping[str, str]
    ops: Mapping[str, int]
    perhaps: tuple[str, ...]
    batches: tuple[int, ...]
    dtype: DtypeName
    interchangeable: bool
    runs_in_runtime: bool


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pattern or a trap.

    expected: the outcome of each BatchNorm, by the name of its node; of a chain of Mul and Add, of its first node.
    because: for one that is kept, a regular expression that its reason must match.
    ops: how many nodes of these kinds an exact fold leaves, where that says more than the BatchNorms.
    perhaps: nodes that are no BatchNorms and may or may not have an entry of their own.
    batches: the sizes at which answers are compared.
    dtype: the only one that the case is about, or None for any.
    interchangeable: which of the BatchNorms has which outcome does not matter.
    runs_in_runtime: False where ONNX Runtime on a CPU can not run it.
    """

    name: str
    family: str
    what: str
    drawing: Drawing
    expected: Mapping[str, Outcome]
    because: Mapping[str, str] = field(default_factory=dict)
    ops: Mapping[str, int] = field(default_factory=dict)
    perhaps: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 3)
    dtype: DtypeName | None = None
    interchangeable: bool = False
    runs_in_runtime: bool = True

    def build(self, draw: Draw) -> onnx.ModelProto:
        """The graph in one variant."""
        graph = Graph(draw)
        graph.outputs.append(self.drawing(graph))
        return graph.model()

    def variant(self, *, square: bool, dtype: DtypeName) -> onnx.ModelProto:
        """The graph with the case's own seed; a case about one dtype is always of that."""
        return self.build(make_draw(self.name, square=square, dtype=self.dtype or dtype))

    @property
    def num_kept(self) -> int:
        """How many BatchNormalization nodes an exact fold leaves."""
        return sum(outcome == "kept" for outcome in self.expected.values())

    @property
    def foldable(self) -> bool:
        """Whether there is anything to fold; else the case is a trap."""
        return any(outcome != "kept" for outcome in self.expected.values())


def case(expected: Mapping[str, Outcome], **options: Unpack[Options]) -> Callable[[Drawing], Case]:
    """Make the function below a case, named by the function, told by its docstring."""

    def make(drawing: Drawing) -> Case:
        return Case(
            name=drawing.__name__,
            family=drawing.__module__.rpartition(".")[2],
            what=" ".join((drawing.__doc__ or "").split("\n\n")[0].split()),
            drawing=drawing,
            expected=expected,
            **options,
        )

    return make


def folds(*names: str, **options: Unpack[Options]) -> Callable[[Drawing], Case]:
    """A case in which all BatchNorms fold; one called `bn` unless names are given."""
    return case(dict.fromkeys(names or ("bn",), "folded"), **options)


def keeps(*names: str, reason: str = "", **options: Unpack[Options]) -> Callable[[Drawing], Case]:
    """A trap: the BatchNorms stay, and the reason of each matches `reason`."""
    kept = names or ("bn",)
    return case(dict.fromkeys(kept, "kept"), **{"because": dict.fromkeys(kept, reason) if reason else {}} | options)


def cases_of(module: object) -> tuple[Case, ...]:
    """The cases of one family, in the order of its file."""
    return tuple(value for value in vars(module).values() if isinstance(value, Case))
