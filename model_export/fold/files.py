"""Reads and writes ONNX files for the fold: every failure is one sentence, and a file appears whole or not at all.

Weights in files of their own (ONNX's external data) stay there until one is asked for, so that a model larger than
protobuf's 2 GiB, or than memory, can be folded. A folded model has its weights in a file beside it if it is that large,
or if any of them were and are unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_export.errors import FoldInvalid, first_line
from model_export.fold.streaming import write_model
from model_export.ir import ir

PROTOBUF_LIMIT = 2**31 - 2**20  # protobuf stops at 2 GiB; beyond it, weights go to a file beside the model


def load_model(path: Path) -> ir.Model:
    """Read an ONNX file; external data are read when they are used.

    Raises:
        FoldInvalid: it is not there, not an ONNX model, or its external data are missing.
    """
    check_readable(path)
    try:
        model = ir.load(path)
    except Exception as err:
        raise FoldInvalid(f"{path} is not an ONNX model that can be read: {first_line(err)}") from err
    if not model.graph.outputs:
        raise FoldInvalid(f"{path} is not an ONNX model that can be read: it has no output (the file may be empty)")
    for tensor in _external(model):
        _refuse_missing_data(path, tensor)
    return model


def check_readable(path: Path) -> None:
    """Refuse a file that is not there.

    Raises:
        FoldInvalid: there is no such file.
    """
    if path.is_dir():
        raise FoldInvalid(f"{path} is a folder: expected an ONNX file")
    if not path.is_file():
        raise FoldInvalid(f"{path}: there is no such file")


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model: the file appears whole or not at all.

    Raises:
        FoldInvalid: the place can not be written.
    """
    with drafted(model, path) as draft:
        move_into_place(draft, path)


@contextmanager
def drafted(model: ir.Model, path: Path) -> Iterator[Path]:
    """Write a model to a hidden folder beside `path`, to be looked at before it is moved into place, or not.

    Raises:
        FoldInvalid: the place can not be written.
    """
    if path.exists() and not path.is_file():
        raise FoldInvalid(f"{path} can not be written: there is something that is no file; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as err:
        raise FoldInvalid(f"{path} can not be written: {first_line(err)}") from err
    with folder as name:
        draft = Path(name) / path.name
        try:
            if _needs_data_file(model):
                ir.save(model, draft, external_data=_data_name(path))
            else:
                write_model(model, draft)
        except OSError as err:
            raise FoldInvalid(f"{path} can not be written: {first_line(err)}") from err
        del model  # what looks at the draft needs the memory
        yield draft


def move_into_place(draft: Path, path: Path) -> None:
    """Move a drafted model, with its data file first, to where it was drafted for.

    A model that was there goes before its data does: never do an old model and new weights stand side by side.
    """
    data = draft.with_name(_data_name(path))
    try:
        if data.exists():
            path.unlink(missing_ok=True)
            data.replace(path.with_name(data.name))
        draft.replace(path)
    except OSError as err:
        raise FoldInvalid(f"{path} can not be written: {first_line(err)}") from err


def _data_name(path: Path) -> str:
    return f"{path.name}.data"


def _needs_data_file(model: ir.Model) -> bool:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    num_bytes = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return num_bytes > PROTOBUF_LIMIT or bool(_external(model))


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    values = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return [tensor for tensor in values if isinstance(tensor, ir.ExternalTensor)]


def _refuse_missing_data(path: Path, tensor: ir.ExternalTensor) -> None:
    place = path.parent / tensor.location
    end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
    if not place.is_file():
        raise FoldInvalid(f"{path} keeps its weights in {tensor.location}, which is not beside it")
    if place.stat().st_size < end:
        raise FoldInvalid(
            f"{place} is too short: {tensor.name} ends at byte {end}, the file at {place.stat().st_size}; copy it again"
        )
