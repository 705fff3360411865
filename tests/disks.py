"""A full disk, for machines where nothing can be mounted."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def room_for_files_of(size: int) -> Iterator[None]:
    """A limit on the size of a file; bytecode is not written below it, as Python takes what is cut short for whole."""
    kept, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        sys.dont_write_bytecode = writes_none
