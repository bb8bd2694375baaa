"""Finds the first tensor where two models part, because a difference at the output does not say which layer made it.

A name that is in both models names the same tensor: the fold keeps to that, and where another tool does not, the
parting that is found is the first such name. Both models run unoptimised on the same random instances, with the
tensors between as further outputs; each tensor is judged by its own noise floor, as outputs are in `check`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from model_export.errors import FoldInvalid, first_line
from model_export.fold.check import (
    GROSS,
    Difference,
    Recording,
    is_floating,
    look_again,
    noise_floors,
    relative_difference,
)
from model_export.fold.files import load_model
from model_export.fold.instances import UNOPTIMISED, Array, Arrays, find_feeds, open_session, run
from model_export.ir import ir
from service.runtime import ort

SLICE = 24  # tensors that are looked at in one run: all of a large model's would not fit into memory


@dataclass(frozen=True)
class WorstChannel:
    """Where along axis 1 the tensors differ most, and one value there in both models."""

    channel: int
    first_value: float
    second_value: float


@dataclass(frozen=True)
class Parting:
    """The first tensor that differs by more than rounding, and the node that makes it, in both models."""

    difference: Difference
    first_node: str
    second_node: str
    first_shape: tuple[int, ...]
    second_shape: tuple[int, ...]
    worst: WorstChannel | None

    @property
    def tensor(self) -> str:
        """Its name, the same in both."""
        return self.difference.output


@dataclass(frozen=True)
class ModelDiff:
    """Where two models part, if they do, and the largest difference of the tensors before that.

    With a parting, outputs that agree mean that what differs does not reach them, or that the name is another
    tensor's in the second model.
    """

    num_in_both: int
    num_only_in_first: int
    num_only_in_second: int
    largest: Difference | None
    parting: Parting | None
    outputs_agree: bool


@dataclass(frozen=True)
class _Graph:
    """A model in `folder`, its weights in a file beside it, so that it can be written with other outputs at no cost."""

    path: Path
    proto: onnx.ModelProto
    tensors: dict[str, int] = field(default_factory=dict)  # what depends on an input: the place of the node it is of

    def probe(self, names: Sequence[str]) -> Path:
        """A model with these tensors for outputs, without the nodes behind the last of them."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        del model.graph.node[max(self.tensors[name] for name in names) + 1 :]
        _drop_unused_weights(model.graph)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        path = self.path.with_suffix(".probe.onnx")
        path.write_bytes(model.SerializeToString())
        return path

    def maker(self, tensor: str) -> str:
        """The node that makes a tensor, by operator and name."""
        node = self.proto.graph.node[self.tensors[tensor]]
        return f"{node.op_type} {node.name}".strip()


def diff(first: Path, second: Path) -> ModelDiff:
    """Compare, by name and in the first model's order, every floating-point tensor that both models compute.

    Raises:
        FoldInvalid: a file is no model, one does not run here, or there is nothing to compare.
    """
    with tempfile.TemporaryDirectory() as folder:
        graphs = _open(first, Path(folder) / "first.onnx"), _open(second, Path(folder) / "second.onnx")
        feeds = _common_feeds(first, second)
        names = [name for name in graphs[0].tensors if name in graphs[1].tensors]
        if not names:
            raise FoldInvalid(
                f"{first} and {second} have no tensor of the same name: they can be compared only by their outputs"
            )
        largest, parting = _walk(graphs, names, feeds)
        outputs_agree = parting is None or _outputs_agree(graphs, feeds)
    only_in_first, only_in_second = (len(graph.tensors) - len(names) for graph in graphs)
    return ModelDiff(len(names), only_in_first, only_in_second, largest, parting, outputs_agree)


def _walk(
    graphs: tuple[_Graph, _Graph], names: Sequence[str], feeds: Sequence[Arrays]
) -> tuple[Difference | None, Parting | None]:
    """Slice by slice until they part: the largest difference that is rounding, and the parting."""
    largest = None
    for found in _slices(graphs, names, feeds):
        for difference in found.differences:
            if difference.is_wrong:
                return largest, _parting(difference, graphs, found)
            if largest is None or difference.in_noise_floors > largest.in_noise_floors:
                largest = difference
    return largest, None


def _outputs_agree(graphs: tuple[_Graph, _Graph], feeds: Sequence[Arrays]) -> bool:
    names = [[value.name for value in graph.proto.graph.output] for graph in graphs]
    if names[0] != names[1] or not all(set(names[0]) <= set(graph.tensors) for graph in graphs):
        return False
    differences = [each for found in _slices(graphs, names[0], feeds) for each in found.differences]
    return bool(differences) and not any(each.is_wrong for each in differences)


# --- two graphs and their inputs -------------------------------------------------------------------------------------


def _open(path: Path, copy: Path) -> _Graph:
    try:
        ir.save(load_model(path), copy, external_data=f"{copy.name}.data")
    except OSError as err:
        raise FoldInvalid(f"a copy of {path} can not be written to {copy.parent}: {first_line(err)}") from err
    proto = onnx.load(copy, load_external_data=False)
    return _Graph(copy, proto, _moving_tensors(proto.graph))


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    if not any(_has_subgraph(node) for node in graph.node):
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _has_subgraph(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") for attribute in node.attribute)


def _moving_tensors(graph: onnx.GraphProto) -> dict[str, int]:
    """What depends on an input. The rest are weights: a fold may well change those."""
    moving = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    found = {}
    for place, node in enumerate(graph.node):
        if _has_subgraph(node) or moving.intersection(node.input):
            moving.update(node.output)
            found.update({name: place for name in node.output if name})
    return found


def _common_feeds(first: Path, second: Path) -> list[Arrays]:
    session = _session(first)
    feeds = [feed for feed, _ in _find_feeds(session, first)]
    _check_steady(session, feeds[0], first)
    _check_same_inputs(_inputs(session), _inputs(_session(second)), first, second)
    return feeds


def _find_feeds(session: ort.InferenceSession, path: Path) -> list[tuple[Arrays, Arrays]]:
    try:
        return find_feeds(session)
    except Exception as err:
        raise FoldInvalid(f"{path} does not run here on random instances: {first_line(err)}") from err


def _session(path: Path) -> ort.InferenceSession:
    try:
        return open_session(path, UNOPTIMISED)
    except Exception as err:
        raise FoldInvalid(f"ONNX Runtime does not load {path}: {first_line(err)}") from err


def _check_steady(session: ort.InferenceSession, feed: Arrays, path: Path) -> None:
    answers = [run(session, feed) for _ in range(2)]
    if any(answers[0][name].tobytes() != answers[1][name].tobytes() for name in answers[0]):
        raise FoldInvalid(f"{path} is random, no two of its runs agree: take the random operators out to compare it")


def _inputs(session: ort.InferenceSession) -> dict[str, str]:
    """By name: dtype and shape, where a free axis is a question mark."""
    shapes = {
        value.name: [size if isinstance(size, int) else "?" for size in value.shape] for value in session.get_inputs()
    }
    return {value.name: f"{value.type} {shapes[value.name]}".replace("'", "") for value in session.get_inputs()}


def _check_same_inputs(expected: dict[str, str], found: dict[str, str], first: Path, second: Path) -> None:
    if expected != found:
        raise FoldInvalid(
            f"only models with the same inputs can be compared: {first} takes {expected}, {second} takes {found}"
        )


# --- slice by slice --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Slice:
    """Some tensors of both models, for each batch, and how far they are apart, in the first model's order."""

    first: Sequence[Arrays]
    second: Sequence[Arrays]
    differences: Sequence[Difference]


def _slices(graphs: tuple[_Graph, _Graph], names: Sequence[str], feeds: Sequence[Arrays]) -> Iterator[_Slice]:
    for start in range(0, len(names), SLICE):
        chosen = names[start : start + SLICE]
        recording = _record(graphs[0].probe(chosen), feeds)
        second = _answers(_session(graphs[1].probe(chosen)), feeds, graphs[1])
        differences = [_difference(name, recording, second) for name in recording.noise_floors]
        if any(each.is_wrong for each in differences):
            differences = look_again(differences, recording)
        yield _Slice(recording.answers, second, differences)


def _record(path: Path, feeds: Sequence[Arrays]) -> Recording:
    session = _session(path)
    answers = [run(session, feed) for feed in feeds]
    return Recording(path, tuple(feeds), tuple(answers), noise_floors(session, feeds, answers))


def _answers(session: ort.InferenceSession, feeds: Sequence[Arrays], graph: _Graph) -> list[Arrays]:
    try:
        return [run(session, feed) for feed in feeds]
    except Exception as err:
        raise FoldInvalid(f"the {graph.path.stem} model does not run here: {first_line(err)}") from err


def _difference(name: str, recording: Recording, second: Sequence[Arrays]) -> Difference:
    """The largest over all batches; where the models have different precisions, judged by the coarser."""
    pairs = [(one[name], other[name]) for one, other in zip(recording.answers, second, strict=True)]
    dtypes = [array.dtype for array in pairs[0] if is_floating(array)]
    floor = max(recording.noise_floors[name], *(float(np.finfo(dtype).eps) for dtype in dtypes))
    relative = max(relative_difference(*pair) for pair in pairs)
    return Difference(name, UNOPTIMISED, relative, floor, max(GROSS[dtype] for dtype in dtypes))


# --- where they part -------------------------------------------------------------------------------------------------


def _parting(difference: Difference, graphs: tuple[_Graph, _Graph], found: _Slice) -> Parting:
    name = difference.output
    pairs = [(one[name], other[name]) for one, other in zip(found.first, found.second, strict=True)]
    first, second = max(pairs, key=lambda pair: relative_difference(*pair))
    first_node, second_node = (graph.maker(name) for graph in graphs)
    worst = _worst_channel(first, second)
    return Parting(difference, first_node, second_node, first.shape, second.shape, worst)


def _worst_channel(first: Array, second: Array) -> WorstChannel | None:
    if first.shape != second.shape or first.ndim < 2:
        return None
    with np.errstate(invalid="ignore"):
        apart = np.abs(first.astype(np.float64) - second.astype(np.float64))
    apart[first == second] = 0  # equal infinities
    apart[np.isnan(first) & np.isnan(second)] = 0
    place = np.unravel_index(np.argmax(np.nan_to_num(apart, nan=np.inf)), first.shape)
    return WorstChannel(int(place[1]), float(first[place]), float(second[place]))
