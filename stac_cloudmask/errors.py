"""The exceptions and the warning of the package, and the removal of secrets from their messages."""

from __future__ import annotations

import re
from typing import Final

URL_PARTS: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)"
    r"([^\s'\"<>/?#]*@|[^\s'\"<>/?#:\[]*:(?!\d+/)[^\s'\"<>]*@)?"  # also where a password is not percent-encoded
    r"([^\s'\"<>?#]*)([?#][^\s'\"<>]*)?"
)
CONFIDENTIAL: Final = (
    r"sig|signature|token|password|passwd|passphrase|pwd|secret|credentials?|cookie|j?session[-_]?id|auth|"
    r"(?:api|access|account|private|secret|shared|subscription)[-_]?key(?:[-_]id)?|x-(?:amz|goog)-[a-z-]{1,40}|bearer|"
    r"authorization"
)
"""Names of secrets, alone or at the end of a longer name such as ``aws_secret_access_key``."""
SECRET: Final = re.compile(
    rf"(?i)(?:(?<![a-z0-9])|(?<=%3f)|(?<=%26))({CONFIDENTIAL})"
    r"(['\"]?\s*(?:[=:]|%3D)\s*['\"]?|(?:(?<=bearer)|(?<=authorization))\s+)"
    r"(?:(?:bearer|basic|token|digest)\s+)?[^\s&'\",;]+"
)
UNSEEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, bidirectional overrides and unpaired surrogates, which do not belong in a message."""


def redact(text: str) -> str:
    """Return text without the query strings, fragments and user info of its URLs, and without apparent secrets.

    Control characters become U+FFFD.
    The function is idempotent.
    """
    seen = UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)
    bare = URL_PARTS.sub(lambda m: f"{m[1]}{m[3]}{'?...' if m[4] else ''}", seen)
    return SECRET.sub(r"\1\2...", bare)


class StacCloudmaskError(Exception):
    """The base class of all errors of this package; secrets are removed from the message.

    ``retryable`` is True if the same input may succeed later: False for bad input, True for infrastructure failures.
    ``retry_after`` is the number of seconds that the server asked to wait; None if it did not ask.
    """

    retryable = False
    retry_after: float | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class ConfigError(StacCloudmaskError, ValueError):
    """A setting has a value that cannot work."""


class UnsupportedItemError(StacCloudmaskError, ValueError):
    """An item cannot be masked: another product level, a malicious id, contradictory grids."""


class OutsideAreaError(StacCloudmaskError, ValueError):
    """An item has no valid pixels in the area to mask."""


class BandNotFoundError(StacCloudmaskError, LookupError):
    """An item lacks an asset that a model or the merge needs."""


class ModelError(StacCloudmaskError, ValueError):
    """A model file or its MLM item is missing, broken or malicious, or the two contradict each other."""


class ChecksumError(ModelError):
    """A file does not match the checksum in its item."""


class ReadError(StacCloudmaskError, OSError):
    """Pixels or metadata could not be read."""

    retryable = True


class WriteError(StacCloudmaskError, OSError):
    """An output could not be written or published."""

    retryable = True


class PublishError(WriteError):
    """A server understood a request and refuses it; repeating the request will not help."""

    retryable = False


class StacCloudmaskWarning(UserWarning):
    """A decision was made on the user's behalf that the user may want to know about."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))
