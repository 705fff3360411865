"""Write outputs to directories and object stores."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from stac_cloudmask.errors import ConfigError, StacCloudmaskError, WriteError
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy, retrying
from stac_cloudmask.stac.hrefs import local_path

Json = dict[str, Any]
Change = Callable[[Json | None], Json]

WORK: Final = ".stac_cloudmask"
"""Folder inside an output directory for temporary files and locks."""
LOCKED: Final = ".lock"
"""Suffix of the lock file that the owner of a temporary folder holds."""
LOCK_SECONDS: Final = 120.0
"""Timeout of a change that waits for others; one takes milliseconds."""


def open_store(out: str | Path) -> LocalStore | ObjectStore:
    """Return the store of an output location: a path, ``file://``, ``s3://``, ``gs://`` or ``az://``.

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
    """A directory whose files are addressed by relative names with ``/``."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        remedy = "; the output needs a writable directory with free space"
        self._named_errors = partial(_named, str(self._root), remedy, OSError)

    def href(self, name: str) -> str:
        """Return the absolute path of a file."""
        return (self._root / name).as_posix()

    def read_json(self, name: str) -> Json | None:
        """Return the content of a JSON file; None if it does not exist or is not a JSON object."""
        with self._named_errors(), suppress(FileNotFoundError, NotADirectoryError):
            return _object((self._root / name).read_bytes())
        return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of the files in a folder, by name; empty if there is no such folder."""
        with self._named_errors(), suppress(FileNotFoundError, NotADirectoryError):
            return {path.name: path.stat().st_size for path in (self._root / folder).iterdir() if path.is_file()}
        return {}

    def get(self, name: str, target: Path) -> None:
        """Copy a file, which exists, to a local path."""
        with self._named_errors():
            shutil.copyfile(self._root / name, target)

    def put(self, files: Mapping[str, Path | Json]) -> None:
        """Write files in this order, moving local ones and serializing JSON; each appears whole or not at all.

        They become visible to other runs together.
        """
        with self._named_errors(), self.workdir() as work:
            ready = {name: _staged(content, work / f"{k}") for k, (name, content) in enumerate(files.items())}
            with self._lock():
                for name, staged in ready.items():
                    self._move(staged, name)

    def update_json(self, name: str, change: Change) -> Json:
        """Replace a JSON file by the result of ``change``, which is returned, without losing concurrent changes.

        ``change`` is given None for a missing file. It may be called several times and must be idempotent.
        """
        with self._named_errors(), self._lock(), self.workdir() as work:
            before = self.read_json(name)
            if before is None and (self._root / name).exists():
                raise WriteError(f"{self._root / name} exists but is not a JSON object; repair or remove it")
            after = change(before)
            if after != before:
                self._move(_staged(after, work / "0"), name)
            return after

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""
        with self._named_errors():
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def workdir(self) -> Iterator[Path]:
        """Make a local folder for temporary files; it is deleted at the end, or at the next call after a crash.

        It is inside the root, which allows moving files by renaming. Its owner holds a lock beside it; a folder whose
        lock is free has been abandoned.
        """
        folder = self._root / WORK / f"run-{uuid.uuid4().hex}"
        lock = FileLock(f"{folder}{LOCKED}")
        with self._named_errors():
            _remove_abandoned(folder.parent)
            lock.acquire()
            folder.mkdir()
        try:
            yield folder
        finally:
            _remove(lock)

    def _move(self, staged: Path, name: str) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock this directory against other runs; the system releases the lock however the process ends."""
        path = self._root / WORK / "lock"
        try:
            with FileLock(path, timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise WriteError(f"{path}: another run has held this lock for {LOCK_SECONDS:.0f} s; is it stuck?") from None


def _remove(lock: FileLock) -> None:
    """Delete a temporary folder and its lock, which is held; Windows cannot delete an open file such as the lock."""
    shutil.rmtree(lock.lock_file.removesuffix(LOCKED), ignore_errors=True)
    lock.release()
    with suppress(OSError):  # as above: what may not be deleted now is left to a later call
        Path(lock.lock_file).unlink(missing_ok=True)


def _remove_abandoned(parent: Path) -> None:
    """Delete the temporary folders whose owners are gone."""
    for path in parent.glob(f"run-*{LOCKED}"):
        lock = FileLock(path, blocking=False)
        with suppress(Timeout):
            lock.acquire()
            _remove(lock)


def _staged(content: Path | Json, target: Path) -> Path:
    """Write content to a file and flush it to disk, ready to be renamed; local files are moved, not copied."""
    if isinstance(content, Path):
        shutil.move(content, target)
    else:
        target.write_bytes(dumped(content))
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    return target


def dumped(body: Json) -> bytes:
    """Return JSON as it is written."""
    return json.dumps(body, indent=2, allow_nan=False).encode()


def _object(content: bytes) -> Json | None:
    """Return the JSON object in a file; None for anything else."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


@contextmanager
def _named(place: str, remedy: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into errors of this package that name the location and a remedy, if there is one."""
    try:
        yield
    except StacCloudmaskError:
        raise
    except kinds as error:
        raise WriteError(f"{place}: {_first_line(error)}{remedy}") from error


@contextmanager
def whole_file(path: Path, *kinds: type[Exception]) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that is renamed to it at the end, to prevent reads of incomplete files.

    Args:
        path: Where the file goes.
        kinds: Exceptions that writing may raise, in addition to OSError.

    Raises:
        WriteError: The file cannot be written; nothing is left behind, and an existing file is kept.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    with _named(f"{path}: cannot be written", "", OSError, *kinds):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
        finally:
            with suppress(OSError):  # on a disk that has become read-only, the first error counts
                temporary.unlink(missing_ok=True)


CONTENTION: Final = RetryPolicy(seconds=60, pause=0.1)
"""Timeout for changing a shared object that others change at the same time."""
SETTLING: Final = 0.5
"""Seconds after which an unconditional change is read back for verification."""
TYPES: Final = {
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".qml": "application/xml",
    ".tif": "image/tiff",
    ".xml": "application/xml",
}


class ObjectStore:
    """A prefix of a bucket or container (``s3://``, ``gs://``, ``az://``), with the methods of `LocalStore`.

    A shared object is replaced only if it has not changed since it was read. On stores without conditional writes,
    changes are read back for verification.
    """

    def __init__(self, root: str) -> None:
        self._url = root.rstrip("/")
        try:
            import obstore  # noqa: PLC0415  (extra)
            from obstore import exceptions, store  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(f"{root}: needs the extra: pip install 'stac-cloudmask[s3]', or gs, or az") from error
        self._api, self._errors = obstore, exceptions
        remedy, kinds = "; check the bucket, its region and your permissions", (OSError, NotImplementedError)
        self._named_errors = partial(_named, self._url, remedy, *kinds, exceptions.BaseError)
        try:
            self._store = store.from_url(
                self._url,
                client_options={"allow_http": True},  # the user's own endpoints
                retry_config={"retry_timeout": timedelta(seconds=DEFAULT_POLICY.seconds)},
                **(_s3_credentials() if self._url.startswith("s3://") else {}),
            )
        except (ValueError, exceptions.BaseError) as error:
            raise ConfigError(f"{root}: {_first_line(error)}; give a directory, s3://, gs:// or az://") from error

    def href(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self._url}/{name}"

    def read_json(self, name: str) -> Json | None:
        """See `LocalStore`."""
        return self._found(name)[0]

    def sizes(self, folder: str) -> dict[str, int]:
        """See `LocalStore`."""
        with self._named_errors():
            listed = self._api.list_with_delimiter(self._store, folder)["objects"]
        return {entry["path"].rpartition("/")[2]: entry["size"] for entry in listed}

    def get(self, name: str, target: Path) -> None:
        """See `LocalStore`."""
        with self._named_errors(), target.open("wb") as file:
            file.writelines(self._api.get(self._store, name))

    def put(self, files: Mapping[str, Path | Json]) -> None:
        """See `LocalStore`; files become visible one by one."""
        with self._named_errors():
            for name, content in files.items():
                self._put(name, content)

    def update_json(self, name: str, change: Change) -> Json:
        """See `LocalStore`."""
        return retrying(lambda: self._change(name, change), policy=CONTENTION)

    def remove(self, name: str) -> None:
        """See `LocalStore`."""
        with self._named_errors(), suppress(FileNotFoundError):
            self._api.delete(self._store, name)

    @contextmanager
    def workdir(self) -> Iterator[Path]:
        """See `LocalStore`; the folder is in the system's temporary directory."""
        with tempfile.TemporaryDirectory(prefix="stac-cloudmask-") as folder:
            yield Path(folder)

    def _found(self, name: str) -> tuple[Json | None, Json | None]:
        """Return the content of a JSON object and the store's version identifier; None if it does not exist."""
        with self._named_errors(), suppress(FileNotFoundError):
            content = self._api.get(self._store, name)
            version = {key: content.meta[key] for key in ("e_tag", "version") if content.meta.get(key)}
            return _object(bytes(content.bytes())), version
        return None, None

    def _put(self, name: str, content: Path | Json, mode: Any = "overwrite") -> None:  # noqa: ANN401  (obstore's)
        body = content if isinstance(content, Path) else dumped(content)
        attributes = {"Content-Type": TYPES.get(Path(name).suffix, "application/octet-stream")}
        self._api.put(self._store, name, body, mode=mode, attributes=attributes)

    def _change(self, name: str, change: Change) -> Json:
        before, version = self._found(name)
        if before is None and version is not None:
            raise WriteError(f"{self.href(name)} is not a JSON object; remove it, and run the same command again")
        after = change(before)
        if after != before and not self._replace(name, after, version):
            raise WriteError(f"{self.href(name)}: others kept changing it at the same time; try again")
        return after

    def _replace(self, name: str, body: Json, version: Json | None) -> bool:
        """Write the object if it still has this version, or is still missing; return whether it was written."""
        with self._named_errors():
            try:
                self._put(name, body, "create" if version is None else version)
            except (FileExistsError, self._errors.AlreadyExistsError, self._errors.PreconditionError):
                return False
            except (NotImplementedError, self._errors.BaseError) as error:
                if not _is_unknown(error):
                    raise
            else:
                return True
            self._put(name, body)
        time.sleep(SETTLING)
        return self.read_json(name) == body


@cache
def _s3_credentials() -> dict[str, Any]:
    """Find credentials like the AWS tools, including profiles; empty if boto3 is not installed."""
    if find_spec("boto3") is None:
        return {}
    import boto3  # noqa: PLC0415  (extra)
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

    session = boto3.Session()
    if session.get_credentials() is None:
        return {"skip_signature": True}  # a public bucket can be read
    return {"credential_provider": Boto3CredentialProvider(session)}


def _is_unknown(error: Exception) -> bool:
    """Return whether a store reports that it does not support conditional writes."""
    codes = ("NotImplemented", "not implemented", "not supported", "A header you provided implies")
    return isinstance(error, NotImplementedError) or any(code in str(error) for code in codes)


def _first_line(error: Exception) -> str:
    """Return the message of an error, without the internals that obstore adds."""
    return str(error).partition("\n")[0]
