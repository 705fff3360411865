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
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import typer

from stac_cloudmask.config import FAST, Settings
from stac_cloudmask.errors import ConfigError

if TYPE_CHECKING:
    from stac_cloudmask.stac.query import Query

SEARCH = "Search"
MODEL = "Models and thresholds"
MERGE = "Merge and clean-up"
READ = "Reading"
OUTPUT = "Output"
PUBLISH = "Publish"
RUN = "Run"

HEADERS = "CLOUDMASK_HEADERS"
"""Environment variable with a header a line; values have spaces, so typer cannot take it apart."""
CATALOG_HEADERS = "CLOUDMASK_CATALOG_HEADERS"
"""The same for the catalog that is searched."""

Catalog = Annotated[
    str | None,
    typer.Option(
        metavar="URL|PATH", help="STAC API or static catalog.", rich_help_panel=SEARCH, envvar="CLOUDMASK_CATALOG"
    ),
]
Collections = Annotated[
    list[str] | None,
    typer.Option("--collection", metavar="ID", help="Collection to search; repeatable.", rich_help_panel=SEARCH),
]
Bbox = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="W S E N", help="Box in degrees of longitude and latitude.", rich_help_panel=SEARCH),
]
Intersects = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|GEOJSON|WKT",
        help="Area in degrees, or a vector file; its features are one.",
        rich_help_panel=SEARCH,
    ),
]
Tile = Annotated[str | None, typer.Option(metavar="33TWL", help="MGRS tile.", rich_help_panel=SEARCH)]
Ids = Annotated[list[str] | None, typer.Option(metavar="ID", help="Item id; repeatable.", rich_help_panel=SEARCH)]
CatalogHeaders = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K:V",
        help=f"Sent to the catalog's server, and never shown; repeatable, or lines of ${CATALOG_HEADERS}.",
        rich_help_panel=SEARCH,
    ),
]
Datetime = Annotated[
    str | None,
    typer.Option(metavar="A/B", help="Instant or interval, open ends as `..`.", rich_help_panel=SEARCH),
]
MaxCloudCover = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        min=0,
        max=100,
        help="Only items whose stated cloud cover is at most this (%).",
        rich_help_panel=SEARCH,
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
SourceRoots = Annotated[
    list[str] | None,
    typer.Option(
        "--source-root",
        metavar="LOCAL=URL",
        help="Where local files of the source items are served from; repeatable.",
        rich_help_panel=PUBLISH,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on stdout, for machines.", rich_help_panel=OUTPUT)]
Directory = Annotated[Path, typer.Argument(help="Directory of an output catalog.")]


def source_roots(given: list[str] | None) -> dict[str, str]:
    """URLs by local folder."""
    pairs = [text.partition("=") for text in given or []]
    if not all(local and url for local, _, url in pairs):
        raise ConfigError("--source-root takes LOCAL=URL: a local folder, and where it is served from")
    return {local: url for local, _, url in pairs}


def headers(given: list[str] | None, variable: str = HEADERS) -> dict[str, str]:
    """Names and values, also from the environment; a malformed one is named by its position: it may be secret."""
    found = {}
    known = os.environ.get(variable, "").splitlines() if given is None else given
    for number, text in enumerate(known, start=1):
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"header number {number} has no colon; write NAME:VALUE")
        found[name.strip()] = value.strip()
    return found


Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Take the small model `fast` for cloud and shadow: several times as fast, less accurate on snow and haze.",
        rich_help_panel=MODEL,
    ),
]
PANELS: Final = {
    MODEL: ("cloud_model", "shadow_model", "cloud_thr", "shadow_thr", "model_cache", "provider", "threads"),
    MERGE: ("merge", "buffer", "min_area", "hole_area"),
    OUTPUT: ("probabilities", "votes", "scl", "mask_only", "collection_config", "overwrite"),
}
"""Where the help shows the options that are made from `Settings`; all others are about reading."""
NAMES: Final = {"private_hosts": "--allow-host", "local_roots": "--allow-folder"}
METAVARS: Final = {
    "collection_config": "FILE",
    "cloud_model": "NAME|PATH",
    "shadow_model": "NAME|PATH",
    "threads": "N",
    "scl_cloud": "CODE",
    "scl_shadow": "CODE",
    "cloud_thr": "F",
    "shadow_thr": "F",
    "buffer": "M",
    "min_area": "M2",
    "hole_area": "M2",
    "resolution": "M",
    "max_halo": "M",
    "model_cache": "DIR",
    "private_hosts": "HOST",
    "local_roots": "DIR",
    "retry_seconds": "S",
}
VARIABLES: Final = {"model_cache": "CLOUDMASK_MODEL_CACHE"}


def takes(name: str, build: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that ``build`` has; the command receives what it returns as ``name``."""
    made = inspect.signature(build, eval_str=True).parameters

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)

        @wraps(command)
        def with_options(**given: Any) -> None:  # noqa: ANN401  (typer checks them)
            chosen = {key: given.pop(key) for key in made}
            command(**given, **{name: build(**chosen)})

        parameters = [*(one for key, one in own.parameters.items() if key != name), *made.values()]
        vars(with_options)["__signature__"] = own.replace(parameters=parameters)  # where typer looks
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_options

    return decorate


class Search(NamedTuple):
    """A catalog, what is searched for in it, and what is sent to its server."""

    catalog: str | None
    query: Query
    headers: dict[str, str]

    def refuse_filters(self, *, clip: bool) -> None:
        """Refuse what has no effect on items that are named.

        Raises:
            ConfigError: Saying what is meant instead.
        """
        query = self.query
        area = query.bbox is not None or query.intersects is not None
        if area and not clip:
            raise ConfigError(
                "--bbox and --intersects choose among items of a search; to mask that part only, add --clip"
            )
        given = (query.datetime, query.max_cloud_cover, query.tile, query.max_items, *query.ids)
        if any(value is not None for value in given):
            raise ConfigError("items are named, so options of a search have no effect; leave out either")


def search_options(
    *,
    catalog: Catalog = None,
    collection: Collections = None,
    bbox: Bbox = None,
    intersects: Intersects = None,
    datetime: Datetime = None,
    max_cloud_cover: MaxCloudCover = None,
    tile: Tile = None,
    ids: Ids = None,
    max_items: MaxItems = None,
    catalog_header: CatalogHeaders = None,
) -> Search:
    """Return what the options of a search ask for."""
    from stac_cloudmask.stac.query import Query  # noqa: PLC0415  (keeps --help fast)

    query = Query(
        collection=collection,
        bbox=bbox,
        intersects=intersects,
        datetime=datetime,
        max_cloud_cover=max_cloud_cover,
        tile=tile,
        ids=ids or (),
        max_items=max_items,
    )
    return Search(catalog, query, headers(catalog_header, CATALOG_HEADERS))


def settings_parameters() -> list[inspect.Parameter]:
    """Return a parameter for typer for each field of `Settings`, with its default, and its help from the docstring."""
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    kinds, helps = get_type_hints(Settings), settings_helps()
    made = []
    for field in (field for field in fields(Settings) if field.name != "area"):  # the command's --clip says it
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
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [*made, inspect.Parameter(FAST, keyword, default=False, annotation=Fast)]


def settings_helps() -> dict[str, str]:
    """Return the text of each attribute in the docstring of `Settings`."""
    text = inspect.getdoc(Settings) or ""
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(words.split()) for name, words in found}


def settings_of(**given: Any) -> Settings:  # noqa: ANN401  (typer checks them)
    """Return the settings that options ask for; an option that is given several times is a tuple."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if values.pop(FAST):
        named = (values["cloud_model"], values["shadow_model"]) != (Settings.cloud_model, Settings.shadow_model)
        if named:
            raise ConfigError("--fast names both models; leave out --cloud-model and --shadow-model")
        values |= {"cloud_model": (FAST,), "shadow_model": FAST}
    values["local_roots"] = values["local_roots"] or None
    return Settings(**values)


def _listed(kind: Any) -> Any:  # noqa: ANN401  (an annotation)
    """Return the type of an option: a list for a tuple of any length."""
    entry = next((get_args(one)[0] for one in (kind, *get_args(kind)) if get_origin(one) is tuple), None)
    return kind if entry is None else types.GenericAlias(list, entry) | None


vars(settings_of)["__signature__"] = inspect.Signature(settings_parameters())  # where `takes` looks
