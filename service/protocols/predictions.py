"""All outputs of the model as JSON: row by row, or output by output; each number the shortest text of its bits.

One output stands there bare, several with their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from service.bundle import TensorSpec
from service.errors import InstanceInvalid
from service.protocols.contract import Outputs

NOT_FINITE = b"null"  # so orjson writes NaN and the infinities, and nothing else among numbers


def write_rows(outputs: Outputs, specs: Sequence[TensorSpec]) -> bytes:
    """Write a list with one item for each instance: its value, or an object of its values by the output's name.

    Raises:
        InstanceInvalid: a value is not finite.
    """
    if len(specs) == 1:
        return _write(outputs[0], outputs, specs)
    named = [(spec.name, output) for spec, output in zip(specs, outputs, strict=True)]
    rows = [{name: output[place] for name, output in named} for place in range(len(outputs[0]))]
    return _write(rows, outputs, specs)


def write_columns(outputs: Outputs, specs: Sequence[TensorSpec]) -> bytes:
    """Write the one output, or an object of all by name, each with all instances.

    Raises:
        InstanceInvalid: a value is not finite.
    """
    if len(specs) == 1:
        return _write(outputs[0], outputs, specs)
    named = {spec.name: output for spec, output in zip(specs, outputs, strict=True)}
    return _write(named, outputs, specs)


def refuse_not_finite(outputs: Outputs, specs: Sequence[TensorSpec]) -> None:
    """Refuse instances for which the model's outputs are not all finite.

    Raises:
        InstanceInvalid: and says for which instance, and which value of which output.
    """
    for spec, output in zip(specs, outputs, strict=True):
        finite = np.isfinite(output.reshape(len(output), -1))
        if not finite.all():
            instance, value = (int(place) for place in np.argwhere(~finite)[0])
            got = f"{spec.name}[{value}] is {output.reshape(len(output), -1)[instance, value]}"
            raise InstanceInvalid(
                f"the network overflows on instance {instance}: {got}; are the values in the range, and of the scale, "
                "that it was trained on?",
                field=f"instance {instance}",
                expected="an instance with finite outputs",
                got=got,
            )


def _write(value: Any, outputs: Outputs, specs: Sequence[TensorSpec]) -> bytes:
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if NOT_FINITE in text:
        refuse_not_finite(outputs, specs)
    return text
