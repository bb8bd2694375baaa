"""Runs several instances at once where that is allowed: fixed buffers of a few sizes, bound before the first request.

All sizes share one piece of memory, the smaller ones its first rows. What is left over in a batch that is not full is
computed too, and nobody reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from service.buffers import Array
from service.session import Session

ONE_AT_A_TIME = threading.Lock()  # captures exclude one another, over all models of the process


class Batches:
    """The scores of up to `largest` instances by one run. For one thread at a time."""

    def __init__(self, session: Session, sizes: Sequence[int]) -> None:
        self.largest = max(sizes)
        batches = session.bind(sizes)
        self._all = tuple(batches.values())
        self._session = session
        self._num_bytes_prepared: int | None = None
        # The batch that a number of instances takes: the smallest that holds them.
        fitting = [min(size for size in sizes if size >= number) for number in range(1, self.largest + 1)]
        self._batch_for = (batches[1], *(batches[size] for size in fitting))  # by the number of instances
        all_outputs = batches[self.largest].outputs
        # All outputs of one instance, by its place in the batch: the very buffers that `compute` gives, cut once.
        self.outputs_at = [tuple(output[at : at + 1] for output in all_outputs) for at in range(self.largest)]
        rows = batches[self.largest].input
        self._rows = [memoryview(row).cast("B") for row in rows.reshape(self.largest, -1)]  # type: ignore[arg-type]

    def prepare(self) -> None:
        """Make every size ready to run in the calling thread, which must be the one that will call `compute`.

        On the CPU there is nothing to do. On a GPU each size is run a few times: the first run allocates and captures
        its CUDA graph, which ONNX Runtime keeps by thread. Meanwhile no other thread may open a model or compute a
        request, of whatever model: while a graph is captured, nobody else may allocate. It may be called again, in the
        same thread or another.

        Raises:
            PredictionFailed: ONNX Runtime failed.
        """
        with ONE_AT_A_TIME:
            for batch in self._all:
                batch.warm_up()
        self._num_bytes_prepared = self._session.num_bytes_used()

    def num_bytes_since_prepared(self) -> int | None:
        """Count the bytes that the GPU's memory has been filled by since `prepare`: 0 if all is well.

        They are the whole device's, as CUDA does not tell processes apart. None before `prepare`, on the CPU, and where
        it can not be read.
        """
        before, now = self._num_bytes_prepared, self._session.num_bytes_used()
        return None if before is None or now is None else now - before

    def compute(self, packed: Sequence[bytes]) -> tuple[Array, ...]:
        """Compute all outputs, each [instances, …], of instances as `InstanceReader.pack` gives them.

        They stand in the buffers: the next call writes over them.

        Raises:
            PredictionFailed: ONNX Runtime failed.
        """
        number = len(packed)
        for row, instance in zip(self._rows, packed, strict=False):
            row[:] = instance
        batch = self._batch_for[number]
        batch.run()
        return tuple([output[:number] for output in batch.outputs])
