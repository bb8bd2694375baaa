"""Every way a run of the bank can fail as a whole; what a single tool does wrong on a case is a verdict, no error.

BankError
├── PeerMissing    a peer is not installed
└── NotComparable  ONNX Runtime itself, without its optimisations, is far from the oracle
"""


class BankError(Exception):
    """The bank can not say anything that means something."""


class PeerMissing(BankError):
    """A peer is not installed."""


class NotComparable(BankError):
    """ONNX Runtime itself, without its optimisations, is far from the oracle on a case."""
