"""Which model a request means: by name, or none named and the default. Empty until everything is loaded."""

from __future__ import annotations

from service.errors import ModelUnknown
from service.protocols.lane import Lane


class Directory:
    """The lanes to all models that are served. `ready` says if the server wants to be asked."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}
        self.default: Lane | None = None
        self.ready = False

    def find(self, name: str) -> Lane:
        """Find a model by its name.

        Raises:
            ModelUnknown: and says which names there are.
        """
        if name not in self.lanes:
            raise ModelUnknown(
                f"no model {name[:80]!r} is served here: there {self._list_names()}",
                field="model",
                expected=", ".join(self.lanes),
                got=name[:80],
            )
        return self.lanes[name]

    def find_default(self) -> Lane:
        """Find the model that is meant when none is named.

        Raises:
            ModelUnknown: there are several, and none is the default.
        """
        if self.default is None:
            raise ModelUnknown(
                f"say which model: there {self._list_names()}; put /models/<name> in front of the path, "
                "or start the server with --default-model",
                expected=", ".join(f"/models/{name}/…" for name in self.lanes),
            )
        return self.default

    def paths(self) -> dict[str, Lane]:
        """Map every path that predicts to its lane."""
        paths = {f"/models/{name}/predict": lane for name, lane in self.lanes.items()}
        return paths | ({"/predict": self.default} if self.default else {})

    def _list_names(self) -> str:
        names = ", ".join(self.lanes) or "none"
        return f"is {names}" if len(self.lanes) == 1 else f"are {names}"
