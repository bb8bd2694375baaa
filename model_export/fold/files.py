"""Reads and writes ONNX files for the fold: every failure is one sentence, and a file appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from model_export.errors import FoldInvalid, first_line

PROTOBUF_LIMIT = 2**31 - 2**20  # protobuf stops at 2 GiB; beyond it, weights go to a file beside the model


def load_model(path: Path) -> ir.Model:
    """Read an ONNX file, with its external data.

    Raises:
        FoldInvalid: it is not there, not an ONNX model, or its external data are missing.
    """
    if not path.is_file():
        raise FoldInvalid(f"{path}: there is no such file")
    try:
        model = ir.external_data.load_to_model(ir.load(path))
    except Exception as err:
        raise FoldInvalid(f"{path} is not an ONNX model that can be read: {first_line(err)}") from err
    if not model.graph.outputs:
        raise FoldInvalid(f"{path} is not an ONNX model that can be read: it has no output (the file may be empty)")
    return model


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model: the file appears whole or not at all.

    Raises:
        FoldInvalid: the place can not be written.
    """
    if path.exists() and not path.is_file():
        raise FoldInvalid(f"{path} can not be written: there is something that is no file; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save_whole(model, path)
    except OSError as err:
        raise FoldInvalid(f"{path} can not be written: {first_line(err)}") from err


def _save_whole(model: ir.Model, path: Path) -> None:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) > PROTOBUF_LIMIT:
        ir.save(model, path, external_data=f"{path.name}.data")
        return
    draft = path.with_name(f".{path.name}.partial")
    try:
        ir.save(model, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
