"""Decides for every BatchNorm of one scope where it goes or why it stays, and carries each fold out when it is proved.

One at a time: an edit is planned as a value, checked on random data, and only then applied; the next BatchNorm sees
the graph as it is then. The first pass goes with the data and asks the layer before, the layers behind and the layers
beside. What was refused is asked again, against the data, for as long as one more goes: a BatchNorm behind another
hides the layer that could take both. At last, those that stay are merged with their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model_export.affine import Affine
from model_export.errors import first_line
from model_export.fold.apply import Names, apply_edit
from model_export.fold.batchnorm import is_batchnorm
from model_export.fold.edit import Edit
from model_export.fold.ledger import Decision, Direction, Fold, Refusal, Refused
from model_export.fold.merge import merge_with_neighbour
from model_export.fold.nodes import is_op, name_of, names_of
from model_export.fold.parallel import absorb_in_parallel, merge_convolutions
from model_export.fold.pointwise import Pointwise, read_pointwise
from model_export.fold.prove import prove
from model_export.fold.scope import Scope
from model_export.fold.selection import Selection
from model_export.fold.subjects import Candidate, find_candidates
from model_export.fold.walk import Walk, absorb_in_input, absorb_in_next, absorb_in_previous
from model_export.ir import ir

Rule = Callable[[Candidate, Affine, Scope], Edit]


class Engine:
    """Folds one scope; `decisions` is the account so far."""

    def __init__(self, scope: Scope, names: Names, selection: Selection) -> None:
        self._scope = scope
        self._names = names
        self._selection = selection
        self._candidates: dict[ir.Node, Candidate] = {}
        self._owner: dict[ir.Node, Candidate] = {}
        self._find_more()
        self._layers: dict[ir.Node, None] = {}
        self.decisions: dict[Candidate, Decision] = {}

    def run(self) -> tuple[Decision, ...]:
        """Decide all; arithmetic that stood beside a BatchNorm may be a subject of its own when that is gone."""
        self._decide_all()
        while self._find_more():
            self._decide_all()
        self._join_convolutions()
        return tuple(self.decisions[candidate] for candidate in self._candidates.values())

    def _find_more(self) -> bool:
        """Find what there is to decide; whether there was anything that is not known yet."""
        found = [candidate for candidate in find_candidates(self._scope) if candidate.nodes[-1] not in self._candidates]
        for candidate in found:
            self._candidates[candidate.nodes[-1]] = candidate
            for node in candidate.nodes:
                self._owner.setdefault(node, candidate)
            self._reserve(candidate)
        return bool(found)

    def _reserve(self, candidate: Candidate) -> None:
        """Note which nodes must stay because somebody wants them to."""
        try:
            self._selection.refuse_unselected(candidate.subject.name)
        except Refused as refused:
            self._scope.reserved.update(dict.fromkeys(candidate.nodes, str(refused)))

    def _decide_all(self) -> None:
        """Those that see constants come first, for what they make is constant to all others; then as the data goes."""
        is_constant = self._scope.constants.is_constant
        for candidate in sorted(self._candidates.values(), key=lambda candidate: not is_constant(candidate.source)):
            self._decide(candidate)
        while self._ask_again():
            pass

    def _ask_again(self) -> bool:
        """Ask those that were refused, back to front; whether one more went."""
        refused = [c for c in self._candidates.values() if isinstance(self.decisions[c], Refusal)]
        for candidate in reversed(refused):
            self._decide(candidate)
        if any(isinstance(self.decisions[c], Fold) for c in refused):
            return True
        merged = [self._merge(candidate) for candidate in refused]
        return any(merged)

    def _decide(self, candidate: Candidate) -> None:
        if isinstance(self.decisions.get(candidate), Fold):
            return
        try:
            affine = self._affine(candidate)
        except Refused as refused:
            self.decisions[candidate] = Refusal(candidate.subject, str(refused), refused.by)
            return
        self.decisions[candidate] = self._first_that_absorbs(candidate, affine)

    def _affine(self, candidate: Candidate) -> Affine:
        for node in candidate.nodes:
            if node in self._scope.reserved:
                raise Refused(self._scope.reserved[node])
        return candidate.affine(self._scope)

    def _first_that_absorbs(self, candidate: Candidate, affine: Affine) -> Decision:
        """A layer comes before arithmetic, which can take a map in its constants but stays to be computed."""
        reasons: list[str] = []
        blamed: list[str] = []
        into_arithmetic: list[tuple[Edit, Direction, float]] = []
        for direction, rule in RULES.items():
            try:
                edit = _planned(rule, candidate, affine, self._scope)
                error = prove(edit, self._scope)
            except Refused as refused:
                reasons += [f"{direction}: {refused}"] if str(refused) else []
                blamed += [name for name in refused.by if name != candidate.subject.name]
            else:
                if edit.layers or not edit.changed:
                    return self._fold(candidate, edit, direction, error)
                into_arithmetic.append((edit, direction, error))
        if into_arithmetic:
            return self._fold(candidate, *into_arithmetic[0])
        return Refusal(candidate.subject, "; ".join(reasons), tuple(dict.fromkeys(blamed)))

    def _fold(self, candidate: Candidate, edit: Edit, direction: Direction, error: float) -> Fold:
        """Carry the edit out. Other candidates that go with it are folded too."""
        others = dict.fromkeys(self._owner[node] for node in edit.bypassed if node in self._owner)
        axes = {each: self._axis(each) for each in (candidate, *others)}
        path = _path(candidate, edit, self._scope)
        fold = Fold(candidate.subject, names_of(edit.layers), direction, path, axis=axes[candidate], error=error)
        source = _source(candidate)
        moved = apply_edit(edit, self._scope, self._names)
        self._layers |= dict.fromkeys(edit.layers)
        self._absorb_arithmetic(moved.get(source, source), direction)
        for other in others:
            if other is not candidate and not self._is_folded(other):
                path = tuple(name for name in fold.path if name not in names_of(other.nodes))
                self.decisions[other] = replace(fold, subject=other.subject, path=path, axis=axes[other])
        return fold

    def _axis(self, candidate: Candidate) -> int:
        """The axis of the channels: 1 of a BatchNormalization by definition, of arithmetic where it varies."""
        try:
            axes = candidate.affine(self._scope).varying_axes
        except Refused:
            return 1
        return axes[0] if len(axes) == 1 else 1

    def _is_folded(self, candidate: Candidate) -> bool:
        return isinstance(self.decisions.get(candidate), Fold)

    def _absorb_arithmetic(self, value: ir.Value, direction: Direction) -> None:
        """Send arithmetic by constants, which stood beside a BatchNorm that is gone, the same way (Caffe's Scale)."""
        while (edit := self._arithmetic_at(value, direction)) is not None:
            if direction == "next":
                value = _before(value, edit)
            apply_edit(edit, self._scope, self._names)

    def _arithmetic_at(self, value: ir.Value, direction: Direction) -> Edit | None:
        try:
            edit = BESIDE[direction](value, self._scope)
            prove(edit, self._scope)
        except (Refused, KeyError):
            return None
        return edit

    # --- merging -----------------------------------------------------------------------------------------------------

    def _merge(self, candidate: Candidate) -> bool:
        """Merge a BatchNorm that stays with its neighbours, one by one; whether there was one."""
        if candidate.subject.form != "BatchNormalization" or self._is_folded(candidate):
            return False
        try:
            self._affine(candidate)
            merge = merge_with_neighbour(candidate.nodes[0], self._scope)
            if merge.gone in self._scope.reserved:
                return False
            error = prove(merge.edit, self._scope)
        except Refused:
            return False
        apply_edit(merge.edit, self._scope, self._names)
        self._note_merged(merge.gone, candidate, error)
        return True

    def _note_merged(self, gone: ir.Node, into: Candidate, error: float) -> None:
        if gone in self._owner:
            other = self._owner[gone]
            direction: Direction = "next" if is_batchnorm(gone) else "previous"
            self.decisions[other] = Fold(other.subject, (into.subject.name,), direction, merged=True, error=error)

    def _join_convolutions(self) -> None:
        """Make one convolution of those beside each other that took BatchNorms."""
        for node in list(self._layers):
            if not is_op(node, "Conv") or node.graph is not self._scope.graph:
                continue
            try:
                edit, taker = merge_convolutions(node, self._scope)
                prove(edit, self._scope)
            except Refused:
                continue
            apply_edit(edit, self._scope, self._names)
            self._redirect(name_of(node), name_of(taker))

    def _redirect(self, gone: str, taker: str) -> None:
        """What went into a layer that was merged into another is in that other."""
        for candidate, decision in self.decisions.items():
            if isinstance(decision, Fold) and gone in decision.into:
                into = tuple(dict.fromkeys(taker if name == gone else name for name in decision.into))
                self.decisions[candidate] = replace(decision, into=into, path=(*decision.path, gone))


# --- the three directions --------------------------------------------------------------------------------------------


def _planned(rule: Rule, candidate: Candidate, affine: Affine, scope: Scope) -> Edit:
    """The edit of a rule. A graph that is not valid ONNX can surprise one: then the BatchNorm stays, and says so."""
    try:
        return rule(candidate, affine, scope)
    except Refused:
        raise
    except Exception as err:
        raise Refused(f"the graph around it can not be read: {first_line(err)}") from err


def _previous(candidate: Candidate, affine: Affine, scope: Scope) -> Edit:
    return _without(candidate).also(absorb_in_input(candidate.nodes[0], candidate.index, affine, Walk(scope)))


def _next(candidate: Candidate, affine: Affine, scope: Scope) -> Edit:
    _source(candidate)
    return _without(candidate).also(absorb_in_next(candidate.output, affine, Walk(scope)))


def _before(value: ir.Value, edit: Edit) -> ir.Value:
    """What the arithmetic that makes a value makes it of."""
    node = value.producer()
    source = None if node is None else node.inputs[edit.bypassed[node]]
    return source or value


def _read_per_channel(node: ir.Node, scope: Scope) -> Pointwise:
    """Arithmetic that differs among channels; a plain number is left, for runtimes know GELU by its 0.5."""
    pointwise = read_pointwise(node, scope)
    if is_batchnorm(node) or max(pointwise.affine.shape) == 1:
        raise Refused("no arithmetic per channel")
    return pointwise


def _arithmetic_behind(value: ir.Value, scope: Scope) -> Edit:
    """The only reader of a value, where it is arithmetic by constants, goes into what makes the value."""
    readers = scope.readers(value)
    if len(readers) != 1:
        raise Refused("no arithmetic")
    node, index = readers[0]
    pointwise = _read_per_channel(node, scope)
    if pointwise.index != index:
        raise Refused("no arithmetic")
    return Edit(bypassed={node: index}, path=(node,)).also(absorb_in_previous(value, pointwise.affine, Walk(scope)))


def _arithmetic_before(value: ir.Value, scope: Scope) -> Edit:
    """What makes a value, where it is arithmetic by constants, goes into the readers of the value."""
    node = value.producer()
    if node is None or node.graph is not scope.graph:
        raise Refused("no arithmetic")
    pointwise = _read_per_channel(node, scope)
    edit = Edit(bypassed={node: pointwise.index}, path=(node,))
    return edit.also(absorb_in_next(value, pointwise.affine, Walk(scope)))


def _parallel(candidate: Candidate, affine: Affine, scope: Scope) -> Edit:
    edit = absorb_in_parallel(_source(candidate), candidate.output, affine, scope)
    return edit.also(Edit(path=candidate.nodes))


def _source(candidate: Candidate) -> ir.Value:
    source = candidate.source
    if source is None:
        raise Refused("it has no input")
    return source


def _without(candidate: Candidate) -> Edit:
    first, *rest = candidate.nodes
    behind = {node: _index_of_chain(node, before) for before, node in zip(candidate.nodes, rest, strict=False)}
    return Edit(bypassed={first: candidate.index, **behind})


def _index_of_chain(node: ir.Node, before: ir.Node) -> int:
    return list(node.inputs).index(before.outputs[0])


def _path(candidate: Candidate, edit: Edit, scope: Scope) -> tuple[str, ...]:
    between = {node for node in edit.path if node not in candidate.nodes and node not in edit.layers}
    return names_of(sorted(between, key=lambda node: scope.place[node]))


BESIDE: dict[Direction, Callable[[ir.Value, Scope], Edit]] = {
    "previous": _arithmetic_behind,
    "next": _arithmetic_before,
}
RULES: dict[Direction, Rule] = {"previous": _previous, "next": _next, "parallel": _parallel}
