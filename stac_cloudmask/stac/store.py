"""Where outputs are kept: a directory, or an object store such as s3://.

Readers never see half a file. A directory gets files by temporary name and rename, and changes of shared files under
a lock that the system releases when its holder dies. An object store writes objects whole, and shared ones only if
nobody else did in between.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from stac_cloudmask.errors import ConfigError, ReadError, WriteError
from stac_cloudmask.stac.temporary import is_abandoned, new_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    Json = dict[str, Any]
    Change = Callable[[Json | None], Json]

OWN: Final = ".stac_cloudmask"
"""Folder inside an output directory for temporary files and the lock."""
LOCK_SECONDS: Final = 120.0
"""How long a change waits for others; one takes milliseconds."""


class Store(Protocol):
    """Files below a root, by relative name with ``/``."""

    def href(self, name: str) -> str:
        """Absolute href of a file."""
        ...

    def read_json(self, name: str) -> Json | None:
        """The content of a JSON file; None if there is none, or if it is no JSON."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Size in bytes of the files in a folder, by their name in it; empty if there is no such folder."""
        ...

    def get(self, name: str, target: Path) -> None:
        """Copy a file to a local path.

        Raises:
            ReadError: There is no such file.
        """
        ...

    def put(self, files: Mapping[str, Path | Json]) -> None:
        """Write files in this order, moving local ones and serializing JSON; each appears whole or not at all."""
        ...

    def update_json(self, name: str, change: Change) -> None:
        """Replace a JSON file by what ``change`` makes of it, losing no change that others make at the same time.

        ``change`` gets None for a file that is not there. It may be called several times and must be idempotent.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        ...

    def workdir(self) -> AbstractContextManager[Path]:
        """A local folder for files on their way; gone at the end, or at the next call after a crash."""
        ...


def open_store(out: str | Path) -> Store:
    """The store of an output location: a path, ``file://`` or ``s3://`` and whatever else fsspec can write.

    Raises:
        ConfigError: The location cannot be written to, or the package for it is missing.
    """
    text = str(out)
    if "://" not in text or text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")))
    if text.startswith(("http://", "https://")):
        raise ConfigError(f"{text}: a web address cannot be written to; give a directory or s3://bucket/prefix")
    from stac_cloudmask.stac.objects import ObjectStore  # noqa: PLC0415  (fsspec and s3fs load slowly)

    return ObjectStore(text)


class LocalStore:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def href(self, name: str) -> str:
        """Absolute path of a file."""
        return str(self._root / name)

    def read_json(self, name: str) -> Json | None:
        """See ``Store``."""
        with self._named_errors():
            try:
                body = json.loads((self._root / name).read_bytes())
            except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
                return None
        return body if isinstance(body, dict) else None

    def sizes(self, folder: str) -> dict[str, int]:
        """See ``Store``."""
        with self._named_errors():
            try:
                with os.scandir(self._root / folder) as entries:
                    return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
            except (FileNotFoundError, NotADirectoryError):
                return {}

    def get(self, name: str, target: Path) -> None:
        """See ``Store``."""
        with self._named_errors():
            try:
                shutil.copyfile(self._root / name, target)
            except FileNotFoundError as error:
                raise ReadError(f"{self.href(name)} is not there") from error

    def put(self, files: Mapping[str, Path | Json]) -> None:
        """See ``Store``; the files become visible together, as far as other runs are concerned."""
        with self._named_errors(), self.workdir() as work:
            ready = {name: _staged(content, work / f"{k}") for k, (name, content) in enumerate(files.items())}
            with self._lock():
                for name, staged in ready.items():
                    self._move(staged, name)

    def update_json(self, name: str, change: Change) -> None:
        """See ``Store``."""
        with self._named_errors(), self._lock(), self.workdir() as work:
            before = self.read_json(name)
            if before is None and (self._root / name).exists():
                raise WriteError(f"{self._root / name} is there but is no JSON object; repair or remove it")
            after = change(before)
            if after != before:
                self._move(_staged(after, work / "0"), name)

    def remove(self, name: str) -> None:
        """See ``Store``."""
        with self._named_errors():
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def workdir(self) -> Iterator[Path]:
        """See ``Store``; it lies inside the root, so that files are moved by renaming."""
        parent = self._root / OWN
        with self._named_errors():
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.iterdir():
                if is_abandoned(left):
                    shutil.rmtree(left, ignore_errors=True)
            folder = parent / new_name()
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _move(self, staged: Path, name: str) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        _sync(target.parent)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Exclusive among all runs on this directory; the system lets go of it however the process ends."""
        (self._root / OWN).mkdir(parents=True, exist_ok=True)
        path = self._root / OWN / "lock"
        with path.open("a") as file:
            _wait_for(file.fileno(), path)
            yield

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (ReadError, WriteError):
            raise
        except OSError as error:
            raise WriteError(
                f"{self._root}: {error}; the output needs a directory that may be written and has room"
            ) from error


def _staged(content: Path | Json, target: Path) -> Path:
    """The content in a file that is safely on the disk, ready to be renamed; local files are taken, not copied."""
    if isinstance(content, Path):
        shutil.move(content, target)
    else:
        target.write_bytes(dumped(content))
    _sync(target)
    return target


def dumped(body: Json) -> bytes:
    """JSON as it is written."""
    return json.dumps(body, indent=2, allow_nan=False).encode()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wait_for(handle: int, path: Path) -> None:
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise WriteError(
                    f"{path}: another run has held this lock for {LOCK_SECONDS:.0f} s; is it stuck?"
                ) from None
            time.sleep(0.02)
        else:
            return


@contextmanager
def local_workdir() -> Iterator[Path]:
    """A folder in the system's place for temporary files."""
    with tempfile.TemporaryDirectory(prefix="stac-cloudmask-") as folder:
        yield Path(folder)
