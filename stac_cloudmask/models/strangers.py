"""What files that should hold a model, but do not, turn out to be."""

from __future__ import annotations

import hashlib
from typing import Final

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
HEAD: Final = 512
"""Bytes that suffice to recognise a stranger."""


def recognise(head: bytes) -> str | None:
    """What a file is and what would help, by its first bytes; None where it may well be a model."""
    text = head.lstrip().lower()
    if not head:
        return "an empty file; fetch it again"
    if head.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the weights it stands for; run `git lfs pull`, or `stac-cloudmask models fetch`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<error")):
        return "a web page or an error page, not weights; check the address, a login page may have come instead"
    if text.startswith((b"{", b"[")):
        return "JSON, not weights; an MLM item has a name that ends in .json"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return "an archive or a PyTorch checkpoint, not ONNX; unpack or export it first"
    return None


def mismatch(data: bytes, *, sha256: str | None, file_size: int | None) -> str | None:
    """How bytes differ from what an item promises; None where they do not."""
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found == sha256:
        return None
    if file_size is not None and len(data) != file_size:
        cut = "cut off" if len(data) < file_size else "another file"
        return f"has {len(data)} bytes, but its item promises {file_size}: {cut}"
    return None if sha256 is None else f"has SHA-256 {found}, but its item promises {sha256}"
