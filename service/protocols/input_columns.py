"""The column format of TensorFlow Serving, which MLflow took over: the whole input, with all instances, at once.

It stands there bare, or behind the name of the model's input; a table also column by column, each by its name.
"""

from __future__ import annotations

from service.bundle import Signature
from service.diagnosis import refuse, refuse_unknown
from service.protocols.dataframes import Dataframes
from service.protocols.instance_lists import InstanceLists
from service.wording import quote


class InputColumns:
    """Reads the value of the key `inputs` for one signature."""

    def __init__(self, signature: Signature) -> None:
        self._name = signature.input.name
        self._is_table = bool(signature.features)
        self._lists = InstanceLists(signature)
        self._dataframes = Dataframes(signature)

    def read(self, value: object, path: str) -> list[bytes]:
        """Turn the value into instances.

        Raises:
            InstanceInvalid: and says what is wrong at which place below `path`.
        """
        if not isinstance(value, dict):
            return self._lists.read(value, path)
        if self._is_table and (value.keys() != {self._name} or self._dataframes.has_only(self._name)):
            return self._dataframes.read_columns(value, path)
        for name in value:
            if name != self._name:
                refuse_unknown(f"{path}[{quote(name)}]", name, [self._name], what="input")
        if not value:
            refuse(path, expected=f"an object with the key {quote(self._name)}", got="an empty object")
        return self._lists.read(value[self._name], f"{path}[{quote(self._name)}]")
