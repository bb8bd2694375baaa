"""What the Open Inference Protocol asks of the server beyond predictions: one answer for HTTP and gRPC alike."""

from __future__ import annotations

from typing import Any

from service.errors import ModelUnknown
from service.management import Manager
from service.metrics import BATCH_SUM, BATCHES, OK, STAGE_CELLS, SUM, Metrics
from service.protocols.descriptions import foldserve_version
from service.protocols.directory import READY, Directory, Served
from service.protocols.open_inference.documents import (
    Duration,
    Statistics,
    describe_config,
    describe_metadata,
    describe_server,
    describe_statistics,
    index_entry,
    list_statistics,
)

Document = dict[str, Any]


class OpenInferenceCatalog:
    """The models that are served and how the server stands, as the protocol's documents.

    A version of None is the one that answers for its model. Where there is none, ModelUnknown is raised.
    """

    def __init__(self, directory: Directory, metrics: Metrics, manager: Manager) -> None:
        self._directory = directory
        self._metrics = metrics
        self._manager = manager

    def is_live(self) -> bool:
        """Say that the process is alive, by answering at all."""
        return True

    def is_ready(self) -> bool:
        """Say if the server wants to be asked."""
        return self._directory.ready

    def is_model_ready(self, name: str, version: str | None) -> bool:
        """Say if a model can be asked."""
        try:
            self._directory.find(name, version)
        except ModelUnknown:
            return False
        return True

    def describe_server(self) -> Document:
        """Say what server this is."""
        return describe_server(foldserve_version())

    def describe_metadata(self, name: str, version: str | None) -> Document:
        """Say what a model takes and gives."""
        served = self._directory.find(name, version)
        versions = [one for one in self._directory.table.models[name].versions if one]
        return describe_metadata(served.model, versions)

    def describe_config(self, name: str, version: str | None) -> Document:
        """Say how a model is configured, in Triton's words."""
        return describe_config(self._directory.find(name, version).model)

    def list_statistics(self, name: str, version: str | None) -> Document:
        """Say what models have done: one version, all versions of a model, or all models where the name is empty."""
        models = self._directory.table.models
        if not name:
            chosen = [one for model in models.values() for one in model.versions.values()]
        elif version is None:
            self._directory.find(name)
            chosen = list(models[name].versions.values())
        else:
            chosen = [self._directory.find(name, version)]
        return list_statistics(describe_statistics(one.model, self._count(one)) for one in chosen)

    def list_repository(self, *, only_ready: bool) -> list[Document]:
        """List every version that was found, and its state."""
        states = [one for one in self._directory.states if not only_ready or one.state == READY]
        return [dict(index_entry(one.name, one.version, one.state, one.reason)) for one in states]  # type: ignore[arg-type]

    async def load(self, name: str) -> None:
        """Look for new versions of a model, and load them."""
        await self._manager.load(name)

    async def unload(self, name: str) -> None:
        """Let a model go."""
        await self._manager.unload(name)

    def _count(self, served: Served) -> Statistics:
        """Read from the counters what a version has done, in all processes of the server."""
        labels = (served.model.name, served.model.version or "")
        values = next((one.values for one in self._metrics.counted() if one.labels == labels), None)
        return Statistics() if values is None else _read(values)


def _read(values: tuple[float, ...]) -> Statistics:
    answered, good = sum(values[:SUM]), values[OK]
    stages = {
        stage: Duration(count=int(sum(values[first : first + SUM])), nanoseconds=int(values[first + SUM] * 1e9))
        for stage, first in STAGE_CELLS.items()
    }
    return Statistics(
        num_inferences=int(values[BATCH_SUM]),
        num_executions=int(sum(values[BATCHES:BATCH_SUM])),
        success=Duration(count=int(good), nanoseconds=int(values[SUM] * 1e9)),
        fail=Duration(count=int(answered - good)),
        queue=stages["queue"],
        compute_input=stages["parse"],
        compute_infer=stages["infer"],
        compute_output=stages["encode"],
    )
