"""Options that several commands share, and those that are made from the fields of `Settings`."""

from __future__ import annotations

import inspect
import os
import re
import types
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import typer

from stac_cloudmask.config import Settings
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
    typer.Option(
        min=0, max=100, help="Only items whose stated cloud cover is at most this (%).", rich_help_panel=SEARCH
    ),
]
MaxItems = Annotated[int | None, typer.Option(min=1, help="At most N items.", metavar="N", rich_help_panel=SEARCH)]
ModelCache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Directory of downloaded weights.",
        envvar="CLOUDMASK_MODEL_CACHE",
        show_default="the user's cache",
        rich_help_panel=MODEL,
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


PANELS: Final = {
    MODEL: ("cloud_model", "shadow_model", "cloud_thr", "shadow_thr", "model_cache", "provider", "threads"),
    MERGE: ("merge", "buffer", "min_area", "hole_area"),
    OUTPUT: ("probabilities", "votes", "mask_only", "overwrite"),
}
"""Where the help shows the options that are made from `Settings`; all others are about reading."""
NAMES: Final = {"private_hosts": "--allow-host", "local_roots": "--allow-folder"}
METAVARS: Final = {
    "cloud_thr": "F",
    "shadow_thr": "F",
    "buffer": "M",
    "min_area": "M2",
    "hole_area": "M2",
    "resolution": "M",
    "model_cache": "DIR",
    "private_hosts": "HOST",
    "local_roots": "DIR",
    "retry_seconds": "S",
}
VARIABLES: Final = {"model_cache": "CLOUDMASK_MODEL_CACHE"}


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of `Settings`; the command receives them as ``settings``."""
    own = inspect.signature(command, eval_str=True)
    made = settings_parameters()

    @wraps(command)
    def with_options(**given: Any) -> None:  # noqa: ANN401  (typer checks them)
        chosen = {parameter.name: given.pop(parameter.name) for parameter in made}
        command(**given, settings=settings_of(chosen))

    parameters = [*(parameter for name, parameter in own.parameters.items() if name != "settings"), *made]
    vars(with_options)["__signature__"] = own.replace(parameters=parameters)  # where typer looks
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def settings_parameters() -> list[inspect.Parameter]:
    """Return a parameter for typer for each field of `Settings`, with its default, and its help from the docstring."""
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    kinds, helps = get_type_hints(Settings), settings_helps()
    made = []
    for field in fields(Settings):
        flag = NAMES.get(field.name, "--" + field.name.replace("_", "-"))
        option = typer.Option(
            flag,
            help=helps[field.name],
            metavar=METAVARS.get(field.name),
            envvar=VARIABLES.get(field.name),
            rich_help_panel=panels.get(field.name, READ),
        )
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        made.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[_listed(kinds[field.name]), option],
            )
        )
    return made


def settings_helps() -> dict[str, str]:
    """Return the text of each attribute in the docstring of `Settings`."""
    text = inspect.getdoc(Settings) or ""
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(words.split()) for name, words in found}


def settings_of(given: dict[str, Any]) -> Settings:
    """Return the settings that options ask for; an option that is given several times is a tuple."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    values["local_roots"] = values["local_roots"] or None
    return Settings(**values)


def _listed(kind: Any) -> Any:  # noqa: ANN401  (an annotation)
    """Return the type of an option: a list for a tuple of any length."""
    entry = next((get_args(one)[0] for one in (kind, *get_args(kind)) if get_origin(one) is tuple), None)
    return kind if entry is None else types.GenericAlias(list, entry) | None
