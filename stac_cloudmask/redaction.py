"""Secrets taken out of any text that goes to logs, errors, items and reports."""

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
