"""Every way a benchmark can fail; a run that fails reports no numbers.

BenchmarkError
├── ToolMissing      wrk is not installed
├── PeerFailed       a server did not start, or went away
├── WrongAnswer      a server answers something else than ONNX Runtime does
└── LoadFailed       wrk failed, or counted errors
"""


class BenchmarkError(Exception):
    """A benchmark can not give numbers that mean something."""


class ToolMissing(BenchmarkError):
    """wrk is not installed."""


class PeerFailed(BenchmarkError):
    """A server did not start, or went away."""


class WrongAnswer(BenchmarkError):
    """A server answers something else than ONNX Runtime does."""


class LoadFailed(BenchmarkError):
    """wrk failed, or counted errors."""
