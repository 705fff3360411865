"""An object store behind fsspec as the place of outputs."""

from __future__ import annotations

import errno
import json
import random
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec

from stac_cloudmask.errors import ConfigError, ReadError, WriteError
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.store import dumped, local_workdir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from stac_cloudmask.stac.store import Change

    Json = dict[str, Any]

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
