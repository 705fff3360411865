"""The errors and the warning of the package, and what never stands in them: secrets."""

from __future__ import annotations

import re
from typing import Final

URL: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)"
    r"([^\s'\"<>/?#]*@|[^\s'\"<>/?#:\[]*:(?!\d+/)[^\s'\"<>]*@)?"  # also where a password is not percent-encoded
    r"([^\s'\"<>?#]*)([?#][^\s'\"<>]*)?"
)
NAMES: Final = (
    r"sig|signature|token|password|passwd|passphrase|pwd|secret|credentials?|cookie|j?session[-_]?id|auth|"
    r"(?:api|access|account|private|secret|shared|subscription)[-_]?key(?:[-_]id)?|x-(?:amz|goog)-[a-z-]{1,40}|bearer|"
    r"authorization"
)
"""What a secret is called, alone or at the end of a longer name such as ``aws_secret_access_key``."""
SECRET: Final = re.compile(
    rf"(?i)(?:(?<![a-z0-9])|(?<=%3f)|(?<=%26))({NAMES})"
    r"(?:(['\"]?\s*(?:[=:]|%3D)\s*['\"]?)|(?<=bearer)(\s+)|(?<=authorization)(\s+))"
    r"(?:(?:bearer|basic|token|digest)\s+)?[^\s&'\",;]+"
)
UNSEEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal, turn the direction of text, or are half of one; none has a place in a message."""


def redact(text: str) -> str:
    """Text without the query strings, fragments and user info of its URLs, and without what looks like a secret.

    Characters that are not to be seen become U+FFFD.
    Doing it again changes nothing.
    """
    seen = UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)
    bare = URL.sub(lambda m: f"{m[1]}{m[3]}{'?...' if m[4] else ''}", seen)
    return SECRET.sub(lambda m: f"{m[1]}{m[2] or m[3] or m[4]}...", bare)


class StacCloudmaskError(Exception):
    """Root of all errors of this package; whatever a message is made of, the error holds it without secrets.

    ``retryable`` says whether the same input may succeed later: False for bad input, True for infrastructure.
    ``retry_after`` is how many seconds the server asked to wait; None where it did not ask.
    """

    retryable = False
    retry_after: float | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class ConfigError(StacCloudmaskError, ValueError):
    """A setting has a value that cannot work."""


class UnsupportedItemError(StacCloudmaskError, ValueError):
    """An item is not something that can be masked: another product level, a hostile id, contradicting grids."""


class OutsideAreaError(StacCloudmaskError, ValueError):
    """An item has no pixel, or none with data, in the area that is to be masked."""


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
