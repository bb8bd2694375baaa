"""Every way in which serving can fail, as one family, so that callers can catch a kind and not a string.

No HTTP in here: `protocols/http_errors.py` holds the one table from error to status.

    FoldserveError
    ├── BundleError               something is wrong with what was to be served
    │   ├── BundleNotFound
    │   ├── ManifestInvalid
    │   ├── FormatVersionUnknown
    │   ├── DigestMismatch
    │   ├── ModelUnloadable
    │   ├── SignatureMismatch
    │   └── SelfCheckFailed
    ├── BundleExists              a version is written once
    ├── BundleUnwritable          the place can not take a bundle
    ├── DeviceUnavailable         the device that was asked for does not work here
    ├── SettingsInvalid
    ├── PredictionFailed          the runtime failed on a valid instance
    │   ├── DeviceOutOfMemory
    │   └── DeviceLost            for this process, until it starts anew
    ├── Overloaded                more requests wait than can be answered soon
    ├── DeadlineExceeded          the client's time was over before there was an answer
    ├── NotReady                  nothing is loaded yet, or the server is about to stop
    └── RequestError              the client's mistake
        ├── BodyMalformed
        ├── BodyTooLarge
        ├── MediaTypeUnsupported
        ├── RequestInvalid        JSON, but no request of the protocol
        ├── InstanceInvalid
        ├── ModelUnknown
        ├── PathUnknown
        ├── KeyMissing
        └── NotPermitted
"""

from __future__ import annotations

import re
from collections.abc import Iterator


class FoldserveError(Exception):
    """Something failed in a way that foldserve knows and can explain in one sentence."""


class BundleError(FoldserveError):
    """A bundle, or a bare model, can not be served."""


class BundleNotFound(BundleError):
    """There is no bundle at that place."""


class ManifestInvalid(BundleError):
    """The manifest is not JSON, or not of the form that its format version has."""


class FormatVersionUnknown(BundleError):
    """The bundle was written in a format that this version of foldserve does not read."""


class DigestMismatch(BundleError):
    """A file of the bundle is not, byte for byte, the one that was written."""


class ModelUnloadable(BundleError):
    """ONNX Runtime refuses the model."""


class SignatureMismatch(BundleError):
    """The model's inputs and outputs are not the ones that its signature promises."""


class SelfCheckFailed(BundleError):
    """On this device the model does not answer the bundle's examples as the trained network did."""


class BundleExists(FoldserveError):
    """A bundle already stands where one was to be written."""


class BundleUnwritable(FoldserveError):
    """A bundle can not be written to the place that was named."""


class DeviceUnavailable(FoldserveError):
    """The device that was asked for does not work on this machine."""


class SettingsInvalid(FoldserveError):
    """A setting has a value that can not be used."""


class PredictionFailed(FoldserveError):
    """ONNX Runtime failed on an instance that fits the signature."""


class DeviceOutOfMemory(PredictionFailed):
    """The device has no memory left for a run."""


class DeviceLost(PredictionFailed):
    """The device failed in a way that nothing but a new process recovers from."""


class Overloaded(FoldserveError):
    """So many requests wait already that this one is refused at once.

    Attributes:
        retry_after_seconds: when those that wait now will have been answered.
    """

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(FoldserveError):
    """The time that the client gave was over before the model ran."""


class NotReady(FoldserveError):
    """The server does not want to be asked now."""


class RequestError(FoldserveError):
    """The request can not be answered, and the client can mend it.

    Attributes:
        field: the part of the request that is wrong, as a path such as `instance[3]`.
        expected: what would have been right.
        got: what arrived.
    """

    def __init__(self, message: str, *, field: str = "", expected: str = "", got: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.expected = expected
        self.got = got


class BodyMalformed(RequestError):
    """The body is not JSON."""


class BodyTooLarge(RequestError):
    """The body is larger than the server's limit."""


class MediaTypeUnsupported(RequestError):
    """The body is of a media type that the endpoint does not read."""


class RequestInvalid(RequestError):
    """The body is JSON, but not a request of the protocol that was spoken."""


class InstanceInvalid(RequestError):
    """The body is JSON, but not an instance that the model's signature admits."""


class ModelUnknown(RequestError):
    """No model, or no version of it, is served under that name."""


class PathUnknown(RequestError):
    """There is nothing at the path that would take such a request."""


class KeyMissing(RequestError):
    """The route wants an API key, and none that is known was sent."""


class NotPermitted(RequestError):
    """Who asks is not allowed to."""


def code_of(kind: type[FoldserveError]) -> str:
    """Give the error's code: InstanceInvalid is `instance_invalid`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _kinds_of(kind: type[FoldserveError]) -> Iterator[type[FoldserveError]]:
    for narrower in kind.__subclasses__():
        yield narrower
        yield from _kinds_of(narrower)


FAILURE_CODES = tuple(map(code_of, _kinds_of(FoldserveError)))
