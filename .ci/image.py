#!/usr/bin/env python3
"""Carry out the steps of the Dockerfile in a root folder that has Python, where no Docker is: `image.py ROOT`.

``FROM`` is the folder itself, ``COPY --from`` finds what the stage before has left in place; ``RUN`` runs in the folder
by chroot, as the image's user. At the end the entry point, without any network, masks a simulated scene.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1]


def steps(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


class Image:
    """A root folder with the state that instructions change: variables, user and working directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        self.user = "root"
        self.folder = "/"
        self.entry: list[str] = []

    def run(self, command: list[str], *, offline: bool = False) -> None:
        """Run a command in the image, with /proc; mounts are gone with it."""
        inside = f'mount -t proc proc "$0/proc" && exec chroot --userspec={self.user} "$0" "$@"'
        space = ["unshare", "--mount", *(["--net"] if offline else [])]
        shell = ["sh", "-c", f"cd {shlex.quote(self.folder)} && exec {shlex.join(command)}"]
        home = "/root" if self.user == "root" else self.folder
        environment = os.environ | {"HOME": home, "LANG": "C.UTF-8"} | self.variables
        subprocess.run([*space, "sh", "-c", inside, str(self.root), *shell], check=True, env=environment)

    def do(self, instruction: str, argument: str) -> None:
        """Carry out one instruction."""
        if instruction in {"ARG", "ENV"}:
            name, _, value = argument.partition("=")
            self.variables[name] = re.sub(r"\$(\w+)", lambda found: self.variables.get(found[1], ""), value)
        elif instruction == "COPY":
            self.copy(*shlex.split(argument))
        elif instruction == "RUN":
            self.run(["sh", "-euc", argument])
        elif instruction == "USER":
            self.user = argument
        elif instruction == "WORKDIR":
            self.folder = argument
        elif instruction == "ENTRYPOINT":
            self.entry = json.loads(argument)
        elif instruction not in {"FROM", "CMD"}:
            raise SystemExit(f"no way to carry out {instruction}")

    def copy(self, *arguments: str) -> None:
        """Copy what .dockerignore lets in; what an earlier stage made is there already."""
        if arguments[0].startswith("--from="):
            return
        target = self.root / arguments[1].lstrip("/")
        kept = re.findall(r"(?m)^!(.+)$", (SOURCE / ".dockerignore").read_text(encoding="utf-8"))
        target.mkdir(parents=True)
        for name in kept:
            source = SOURCE / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target / name)


def main() -> None:
    """Carry out all steps, then mask a scene as the image's user."""
    image = Image(Path(sys.argv[1]).resolve())
    for instruction, argument in steps((SOURCE / "Dockerfile").read_text(encoding="utf-8")):
        sys.stdout.write(f"{instruction} {argument}\n")
        sys.stdout.flush()
        image.do(instruction, argument)
    image.run([*image.entry, "demo", "--out", "demo"], offline=True)


if __name__ == "__main__":
    main()
