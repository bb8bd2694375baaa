"""How the protocol names the types of numbers, beside numpy's names, which signatures use."""

from __future__ import annotations

DATATYPES = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
)
DATATYPE_OF = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
