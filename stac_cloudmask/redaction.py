"""Secrets taken out of any text that goes to logs, errors, items and reports."""

from __future__ import annotations

import re
from typing import Final

URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s'\"<>/?#]*@)?([^\s'\"<>?#]*)([?#][^\s'\"<>]*)?")
SECRET: Final = re.compile(
    r"(?i)\b(?:(sig|signature|token|password|secret|api[-_]?key|access[-_]?key(?:[-_]id)?|x-(?:amz|goog)-[a-z-]+|bearer|"
    r"authorization)(\s*[=:]\s*)|(bearer|authorization)(\s+))(?:(?:bearer|basic|token)\s+)?[^\s&'\",;]+"
)


def redact(text: str) -> str:
    """Text without the query strings, fragments and user info of its URLs, and without what looks like a secret.

    Doing it again changes nothing.
    """
    bare = URL.sub(lambda m: f"{m[1]}{m[3]}{'?...' if m[4] else ''}", text)
    return SECRET.sub(lambda m: f"{m[1] or m[3]}{m[2] or m[4]}...", bare)
