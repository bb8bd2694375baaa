"""Every way in which making a bundle can fail, as one branch of the family in `service.errors`.

FoldserveError
└── ExportError
    ├── DataInvalid           the data can not be trained on; names the column, file or value
    ├── NetworkInvalid        the network can not be built, trained or exported; names the layer
    ├── CheckpointInvalid     the checkpoint can not be read, or no longer fits its data
    ├── StatisticsInvalid     a BatchNorm's statistics are unusable; names the layer and the remedy
    ├── StudyInvalid          a study can not be run or gone on with
    ├── LedgerUnbalanced      a BatchNorm is missing from the account: a defect of foldserve
    ├── FoldInvalid           a model can not be folded at all (unreadable, or written wrongly)
    ├── ParityFailed          what would be served does not equal what was trained
    ├── PrecisionUnavailable  the model can not be had, or not be run, in the precision that was asked for
    ├── AccuracyLost          in the lower precision the model puts too many instances wrong
    └── RefusedElsewhere      another process of the same training refused, and says why
"""

from __future__ import annotations

from service.errors import FoldserveError


class ExportError(FoldserveError):
    """A bundle can not be made."""


class DataInvalid(ExportError):
    """The data can not be trained on."""


class NetworkInvalid(ExportError):
    """The network can not be built, trained or exported."""


class CheckpointInvalid(ExportError):
    """The checkpoint can not be read, or does not fit the data it names."""


class StatisticsInvalid(ExportError):
    """The statistics of a BatchNorm can not be frozen as they are."""


class StudyInvalid(ExportError):
    """The study can not be run, or its results file is not its own."""


class LedgerUnbalanced(ExportError):
    """The fold's account does not add up; nothing was written."""


class FoldInvalid(ExportError):
    """The model can not be folded."""


class ParityFailed(ExportError):
    """The served model does not answer as the trained network does."""


class PrecisionUnavailable(ExportError):
    """The model can not be lowered to this precision, or the device can not run it."""


class AccuracyLost(ExportError):
    """Lower precision costs more accuracy than is allowed."""


class RefusedElsewhere(ExportError):
    """This process ends because another one of the same training did."""


def first_line(err: BaseException) -> str:
    """What another library's error says, as one line that can end one of our sentences."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0]
