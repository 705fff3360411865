"""The template: markup, style and script in one file, which runs nothing but this script and asks nobody."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

SCRIPTS: Final = ("dom", "model", "paint", "stage", "list", "timeline", "inspect", "main")
"""Parts of the script, in the order in which they depend on each other."""
POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: pictures in the file, this style and this script; no request, no other code."""
DATA: Final = "<!-- data -->"
"""Where the items go in the template."""


@dataclass(frozen=True)
class Page:
    """The page around the items."""

    template: Template
    style: str
    script: str
    tail: str

    def head(self, *, title: str) -> str:
        """All that comes before the items."""
        policy = POLICY.format(style=_sha256(self.style), script=_sha256(self.script))
        return self.template.substitute(title=escape(title), policy=policy, style=self.style)

    @staticmethod
    def data(name: str, json: str) -> str:
        """A block of data; ``json`` must have no ``<``."""
        return f'<script type="application/json" id="{name}">{json}</script>\n'


def load_page() -> Page:
    """The page as it ships with the package."""
    folder = files("stac_cloudmask.report") / "template"
    parts = (folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{"".join(parts)}}})();\n'
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    head, tail = folder.joinpath("report.html").read_text(encoding="utf-8").split(DATA)
    return Page(Template(head), style, script, Template(tail).substitute(script=script))


def _sha256(text: str) -> str:
    """As a Content-Security-Policy wants the hash of an element's text."""
    return b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
