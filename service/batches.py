"""Runs several instances at once where that is allowed: fixed buffers of a few sizes, bound before the first request.

All sizes share one piece of memory, the smaller ones its first rows. What is left over in a batch that is not full is
computed too, and nobody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.session import Array, Session


class Batches:
    """The scores of up to `largest` instances by one run. For one thread at a time."""

    def __init__(self, session: Session, sizes: Sequence[int]) -> None:
        self.largest = max(sizes)
        batches = session.bind(sizes)
        # The batch that a number of instances takes: the smallest that holds them.
        fitting = [min(size for size in sizes if size >= number) for number in range(1, self.largest + 1)]
        self._batch_for = (batches[1], *(batches[size] for size in fitting))  # by the number of instances
        rows = batches[self.largest].input
        self._rows = [memoryview(row).cast("B") for row in rows.reshape(self.largest, -1)]  # type: ignore[arg-type]

    def compute(self, packed: Sequence[bytes]) -> Array:
        """Compute the scores [instances, labels] of instances as `InstanceReader.pack` gives them.

        They stand in the buffer: the next call writes over them.

        Raises:
            PredictionFailed: ONNX Runtime failed.
        """
        number = len(packed)
        for row, instance in zip(self._rows, packed, strict=False):
            row[:] = instance
        batch = self._batch_for[number]
        batch.run()
        return batch.outputs[0][:number]
