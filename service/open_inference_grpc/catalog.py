"""What gRPC asks of the server beyond predictions: who holds the models implements it, and needs no gRPC for that.

Documents are those of the protocol over HTTP, as `service/protocols/open_inference/documents.py` makes them: each has
the names of the message's fields. So both protocols say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Document = Mapping[str, Any]


class Catalog(Protocol):
    """The models, and how the server stands. A version of None is the one that answers for its model.

    Where there is no such model or version, ModelUnknown is raised; what else a FoldserveError says, the client reads.
    """

    def is_live(self) -> bool:
        """Say if the process is alive; it is, if it can answer."""

    def is_ready(self) -> bool:
        """Say if the server wants to be asked."""

    def is_model_ready(self, name: str, version: str | None) -> bool:
        """Say if a model can be asked; False, and no error, where there is no such model."""

    def describe_server(self) -> Document:
        """Give `describe_server`'s document."""

    def describe_metadata(self, name: str, version: str | None) -> Document:
        """Give `describe_metadata`'s document."""

    def describe_config(self, name: str, version: str | None) -> Document:
        """Give `describe_config`'s document."""

    def list_statistics(self, name: str, version: str | None) -> Document:
        """Give `list_statistics`'s document: of one model, or of all where the name is empty."""

    def list_repository(self, *, only_ready: bool) -> Sequence[Document]:
        """Give an `index_entry` for each version that was found."""

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; return when it answers."""

    async def unload(self, name: str) -> None:
        """Let a model go; return when it no longer answers."""
