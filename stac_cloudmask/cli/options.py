"""Options that several commands share, each said once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stac_cloudmask.errors import ConfigError

SEARCH = "Search"
MODEL = "Models and thresholds"
MERGE = "Merge and clean-up"
READ = "Reading"
OUTPUT = "Output"
PUBLISH = "Publish"
RUN = "Run"

HEADERS = "CLOUDMASK_HEADERS"
"""Environment variable with a header a line; values have spaces, so typer cannot take it apart."""

Catalog = Annotated[
    str | None,
    typer.Option(help="STAC API or static catalog, URL or path.", rich_help_panel=SEARCH, envvar="CLOUDMASK_CATALOG"),
]
Collection = Annotated[str | None, typer.Option(help="Collection to search.", rich_help_panel=SEARCH)]
Bbox = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="W S E N", help="Box in degrees of longitude and latitude.", rich_help_panel=SEARCH),
]
Datetime = Annotated[
    str | None,
    typer.Option(metavar="A/B", help="Instant or interval, open ends as `..`.", rich_help_panel=SEARCH),
]
MaxCloudCover = Annotated[
    float | None,
    typer.Option(min=0, max=100, help="Largest cloud cover in percent that the item states.", rich_help_panel=SEARCH),
]
MaxItems = Annotated[int | None, typer.Option(min=1, help="Stop after so many items.", rich_help_panel=SEARCH)]
ModelCache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Directory of fetched weights.",
        envvar="CLOUDMASK_MODEL_CACHE",
        show_default="the user's cache",
        rich_help_panel=MODEL,
    ),
]
AllowHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="HOST",
        help="Host on a private network that a remote catalog's items may name; repeatable.",
        rich_help_panel=READ,
    ),
]
AllowFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-folder",
        metavar="DIR",
        help="Folder that local items may read from, instead of any; repeatable.",
        rich_help_panel=READ,
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="K:V",
        help=f"Sent to the API with every request, and never shown; repeatable, or lines of ${HEADERS}.",
        rich_help_panel=PUBLISH,
    ),
]
AssetRoot = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Where the files of the catalog are served from, for an API.", rich_help_panel=PUBLISH
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on stdout, for machines.", rich_help_panel=OUTPUT)]
Directory = Annotated[Path, typer.Argument(help="Directory of an output catalog.")]


def headers(given: list[str] | None) -> dict[str, str]:
    """Names and values, also from the environment; a malformed one is named by its position: it may be secret."""
    found = {}
    known = os.environ.get(HEADERS, "").splitlines() if given is None else given
    for number, text in enumerate(known, start=1):
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"header number {number} has no colon; write NAME:VALUE")
        found[name.strip()] = value.strip()
    return found
