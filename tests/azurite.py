"""Azure's blob storage on this machine: Microsoft's emulator Azurite (see .ci/servers)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from pgstac import CACHE, LIFETIME, free_port

PROGRAM = CACHE / "stac-cloudmask" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, which everybody knows."""
CONTAINER = "masks"


@contextmanager
def azure_container() -> Iterator[str]:
    """Run the emulator, with everything that reads the environment led to it; gives the URL of an empty container."""
    if not PROGRAM.exists() or not shutil.which("node"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs azurite, which .ci/servers installs")
    port, folder = free_port(), Path(tempfile.mkdtemp())
    options = ["--blobPort", str(port), "--location", folder, "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command = ["timeout", LIFETIME, PROGRAM, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait(port)
            _create(port)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
                patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
                patch.setenv("AZURE_ENDPOINT", f"http://127.0.0.1:{port}/{ACCOUNT}")
                yield f"az://{CONTAINER}"
        finally:
            server.terminate()
            server.wait(timeout=30)
            shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("azurite did not start within a minute")


def _create(port: int) -> None:
    """Create the container by the one request of Azure's that obstore does not have."""
    date, version = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "2021-08-06"
    signed = "PUT" + "\n" * 12
    signed += f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), signed.encode(), hashlib.sha256)).decode()
    answer = httpx2.put(
        f"http://127.0.0.1:{port}/{ACCOUNT}/{CONTAINER}?restype=container",
        headers={
            "x-ms-date": date,
            "x-ms-version": version,
            "authorization": f"SharedKey {ACCOUNT}:{signature}",
            "content-length": "0",
        },
    )
    answer.raise_for_status()
