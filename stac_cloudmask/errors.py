"""Every error and warning that the package raises on purpose."""

from __future__ import annotations

from stac_cloudmask.redaction import redact


class StacCloudmaskError(Exception):
    """Root of all errors of this package; whatever a message is made of, the error holds it without secrets.

    ``retryable`` says whether the same input may succeed later: False for bad input, True for infrastructure.
    """

    retryable = False

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class ConfigError(StacCloudmaskError, ValueError):
    """A setting has a value that cannot work."""


class UnsupportedItemError(StacCloudmaskError, ValueError):
    """An item is not something that can be masked: another product level, a hostile id, contradicting grids."""


class BandNotFoundError(StacCloudmaskError, LookupError):
    """An item lacks an asset that a model or the merge needs."""


class ModelError(StacCloudmaskError, ValueError):
    """A model file or its MLM item is missing, broken, hostile or not what the other says."""


class ChecksumError(ModelError):
    """The bytes of a file are not those that its item promises."""


class ReadError(StacCloudmaskError, OSError):
    """Pixels or metadata could not be read."""

    retryable = True


class WriteError(StacCloudmaskError, OSError):
    """An output could not be written or published."""

    retryable = True


class PublishError(WriteError):
    """A server understood a request and will not carry it out; sending it again will not help."""

    retryable = False


class StacCloudmaskWarning(UserWarning):
    """Something was decided for the user that the user may want to know."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))
