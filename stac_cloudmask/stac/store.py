"""Where outputs are written: directories and object stores."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import fsspec

from stac_cloudmask.errors import ConfigError, ReadError, WriteError
from stac_cloudmask.stac.hrefs import local_path, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    Json = dict[str, Any]
    Change = Callable[[Json | None], Json]

NAME: Final = re.compile(r"run-(?P<machine>[0-9a-f]{12})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}")
ABANDONED: Final = 24 * 3600.0
"""Seconds without change after which a folder of another machine, whose processes cannot be seen, counts as dead."""


def new_name() -> str:
    """A name that no other process, thread or machine gives."""
    pid = os.getpid()
    return f"run-{_machine()}-{pid}-{_start(pid) or 0}-{uuid.uuid4().hex[:8]}"


def is_abandoned(path: Path) -> bool:
    """Whether the run that made a temporary folder is over; what has another kind of name is not ours to judge."""
    found = NAME.fullmatch(path.name)
    if found is None:
        return False
    if found["machine"] == _machine():
        return _start(int(found["pid"])) != int(found["start"])
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False


def _machine() -> str:
    """The running kernel and the process numbers within it: containers can share a host name, but not these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        boot, space = "unknown", uuid.getnode()
    return hashlib.sha256(f"{os.uname().nodename} {boot} {space}".encode()).hexdigest()[:12]


def _start(pid: int) -> int | None:
    """When a process was started, in ticks since boot, as a number can be given again; None if there is no such."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state_on = stat.rpartition(")")[2].split()
    return None if state_on[0] in {"Z", "X"} else int(state_on[19])


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


ATTEMPTS: Final = 60
"""Tries to change a shared object while others change it, too."""
PAUSE: Final = 0.5
"""Longest pause between them, in seconds; its length is random, so that two runs get out of step."""
TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
UNSUPPORTED: Final = frozenset({"NotImplemented", "InvalidArgument"})
TYPES: Final = {".json": "application/json", ".tif": "image/tiff", ".png": "image/png"}


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
        for _ in range(ATTEMPTS):
            tag = self._tag(name)  # before the content: a change in between then fails the condition
            before = self.read_json(name)
            after = change(before)
            if after == before:
                return
            if self._replace(name, after, tag) and (self._conditional or self._holds(name, change)):
                return
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311  (not a secret)
        raise WriteError(f"{self.href(name)}: others changed it {ATTEMPTS} times in a row; try again")

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
        time.sleep(PAUSE)
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
