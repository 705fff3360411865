"""Where outputs are written: directories and object stores."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import fsspec
from filelock import FileLock, Timeout

from stac_cloudmask.errors import ConfigError, ReadError, WriteError
from stac_cloudmask.retry import RetryPolicy, retrying
from stac_cloudmask.stac.hrefs import local_path, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    Json = dict[str, Any]
    Change = Callable[[Json | None], Json]

WORK: Final = ".stac_cloudmask"
"""Folder inside an output directory for temporary files and locks."""
LOCK: Final = "lock"
LOCK_SECONDS: Final = 120.0
"""How long a change waits for others; one takes milliseconds."""
UNLOCKED_SECONDS: Final = 24 * 3600.0
"""Age at which a temporary folder without a lock, as versions before 0.2 made them, is removed."""


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
        return LocalStore(local_path(text))
    if text.startswith(("http://", "https://")):
        raise ConfigError(f"{text}: a web address cannot be written to; give a directory or s3://bucket/prefix")
    return ObjectStore(text)


class LocalStore:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def href(self, name: str) -> str:
        """Absolute path of a file."""
        return (self._root / name).as_posix()

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
        """See ``Store``; it lies inside the root, so that files are moved by renaming.

        Its owner holds a lock beside it; a folder whose lock can be taken has been abandoned.
        """
        parent = self._root / WORK
        with self._named_errors():
            _remove_abandoned(parent)
            run = parent / f"run-{uuid.uuid4().hex}"
            folder = run / "files"
            folder.mkdir(parents=True)
            lock = FileLock(run / LOCK)
            lock.acquire()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            shutil.rmtree(run, ignore_errors=True)

    def _move(self, staged: Path, name: str) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        _sync_folder(target.parent)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Exclusive among all runs on this directory; the system releases it however the process ends."""
        (self._root / WORK).mkdir(parents=True, exist_ok=True)
        path = self._root / WORK / LOCK
        try:
            with FileLock(path, timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise WriteError(f"{path}: another run has held this lock for {LOCK_SECONDS:.0f} s; is it stuck?") from None

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


def _remove_abandoned(parent: Path) -> None:
    """Delete the temporary folders whose owners are gone."""
    for run in parent.glob("run-*"):
        if (run / LOCK).exists() or _is_old(run):
            with suppress(Timeout, FileNotFoundError):
                with FileLock(run / LOCK, blocking=False):
                    shutil.rmtree(run / "files", ignore_errors=True)
                shutil.rmtree(run, ignore_errors=True)  # Windows deletes no file that is open, as the lock was


def _is_old(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > UNLOCKED_SECONDS
    except FileNotFoundError:
        return False


def _staged(content: Path | Json, target: Path) -> Path:
    """The content in a file that is safely on the disk, ready to be renamed; local files are taken, not copied."""
    if isinstance(content, Path):
        shutil.move(content, target)
    else:
        target.write_bytes(dumped(content))
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    return target


def dumped(body: Json) -> bytes:
    """JSON as it is written."""
    return json.dumps(body, indent=2, allow_nan=False).encode()


def _sync_folder(path: Path) -> None:
    """Make renames in a folder outlast a power cut; Windows cannot open folders and does that by itself."""
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def local_workdir() -> Iterator[Path]:
    """A folder in the system's place for temporary files."""
    with tempfile.TemporaryDirectory(prefix="stac-cloudmask-") as folder:
        yield Path(folder)


CONTENTION: Final = RetryPolicy(seconds=60, pause=0.1)
"""How long a shared object is tried to be changed while others change it, too."""
SETTLING: Final = 0.5
"""Seconds after which a change that could not be made conditional is read back."""
TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
UNSUPPORTED: Final = frozenset({"NotImplemented", "InvalidArgument"})
TYPES: Final = {
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".qml": "application/xml",
    ".tif": "image/tiff",
    ".xml": "application/xml",
}


class ObjectStore:
    """A prefix of a bucket; S3 has conditional writes, other stores are read back after a change."""

    def __init__(self, root: str) -> None:
        protocol = root.partition("://")[0]
        try:
            # A listing that is kept would hide what another run has written.
            self._fs, self._root = fsspec.url_to_fs(root.rstrip("/"), use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{root}: {error}; for s3:// install the extra: pip install 'stac-cloudmask[s3]'"
            ) from error
        self._url = root.rstrip("/")
        self._conditional = protocol == "s3"
        self._s3 = protocol == "s3"

    def href(self, name: str) -> str:
        """URL of an object."""
        return f"{self._url}/{name}"

    def read_json(self, name: str) -> Json | None:
        """See ``Store``."""
        with self._named_errors():
            try:
                body = json.loads(self._fs.cat_file(self._path(name)))
            except (FileNotFoundError, ValueError, RecursionError):
                return None
        return body if isinstance(body, dict) else None

    def sizes(self, folder: str) -> dict[str, int]:
        """See ``Store``."""
        with self._named_errors():
            try:
                listed = self._fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        return {Path(entry["name"]).name: entry["size"] for entry in listed if entry["type"] == "file"}

    def get(self, name: str, target: Path) -> None:
        """See ``Store``."""
        with self._named_errors():
            try:
                self._fs.get_file(self._path(name), str(target))
            except FileNotFoundError as error:
                raise ReadError(f"{self.href(name)} is not there") from error

    def put(self, files: Mapping[str, Path | Json]) -> None:
        """See ``Store``."""
        with self._named_errors():
            for name, content in files.items():
                if isinstance(content, Path):
                    self._fs.put_file(str(content), self._path(name), **self._headers(name))
                else:
                    self._fs.pipe_file(self._path(name), dumped(content), **self._headers(name))

    def update_json(self, name: str, change: Change) -> None:
        """See ``Store``."""
        retrying(lambda: self._change(name, change), policy=CONTENTION)

    def _change(self, name: str, change: Change) -> None:
        tag = self._tag(name)  # before the content: a change in between then fails the condition
        before = self.read_json(name)
        after = change(before)
        if after == before:
            return
        if not self._replace(name, after, tag) or not (self._conditional or self._holds(name, change)):
            raise WriteError(f"{self.href(name)}: others changed it at the same time, again and again; try again")

    def remove(self, name: str) -> None:
        """See ``Store``."""
        with self._named_errors():
            if self._fs.exists(self._path(name)):
                self._fs.rm_file(self._path(name))

    def workdir(self) -> AbstractContextManager[Path]:
        """See ``Store``; it lies on this machine."""
        return local_workdir()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _headers(self, name: str) -> dict[str, str]:
        return {"ContentType": TYPES[Path(name).suffix]} if self._s3 else {}

    def _tag(self, name: str) -> str | None:
        """What the store calls this version of an object; None if there is no object, or no such name for it."""
        with self._named_errors():
            try:
                found = self._fs.info(self._path(name)).get("ETag")
            except FileNotFoundError:
                return None
        return None if found is None else str(found)

    def _replace(self, name: str, body: Json, tag: str | None) -> bool:
        """Write if the object is still the one with this tag (or still missing); whether it was."""
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        options = self._headers(name) | (condition if self._conditional else {})
        with self._named_errors():
            try:
                self._fs.pipe_file(self._path(name), dumped(body), **options)
            except OSError as error:
                code = _code(error)
                if self._conditional and (code in TAKEN or isinstance(error, FileExistsError)):
                    return False
                if self._conditional and code in UNSUPPORTED:
                    self._conditional = False
                    return False
                raise
        return True

    def _holds(self, name: str, change: Change) -> bool:
        """Whether a change is still there after others had the time to write over it."""
        time.sleep(SETTLING)
        now = self.read_json(name)
        return now is not None and change(now) == now

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        botocore = sys.modules.get("botocore.exceptions")
        foreign = (botocore.BotoCoreError, botocore.ClientError) if botocore else ()
        try:
            yield
        except (ReadError, WriteError):
            raise
        except (OSError, *foreign) as error:
            raise WriteError(
                f"{self._url}: {redact(str(error))}; check the bucket, its region and your rights"
            ) from error


def _code(error: OSError) -> str | None:
    """The store's own code of an error, which s3fs keeps as its cause."""
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code"))
    return "NotImplemented" if error.errno == errno.ENOSYS else None
