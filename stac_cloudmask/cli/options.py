"""Command-line options built from functions: types and defaults from signatures, help from docstrings."""

from __future__ import annotations

import inspect
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from itertools import chain
from typing import Annotated, Any, Final, get_args

import typer
from typer.core import TyperCommand

from stac_cloudmask.errors import ConfigError

HEADERS: Final = "CLOUDMASK_HEADERS"
"""Environment variable with one header per line; typer would split the values at their spaces."""
CATALOG_HEADERS: Final = "CLOUDMASK_CATALOG_HEADERS"
"""The same for the headers of the searched catalog."""

PANELS: Final = {
    "Arguments": "",
    "Options": "",
    "Main options": "out catalog collection bbox datetime max_cloud_cover clip votes workers dry_run",
    "Search": "intersects tile ids max_items versions catalog_header",
    "Models and thresholds": "cloud_model shadow_model fast cloud_thr shadow_thr provider threads model_cache",
    "Merge and clean-up": "merge buffer min_area hole_area",
    "Reading": "resolution loader in_memory missing_scl scl_cloud scl_shadow boa_offset max_halo private_hosts "
    "local_roots retry_seconds",
    "Output": "probabilities scl mask_only collection_config overwrite",
    "Publish": "publish header asset_root source_root",
    "Run": "scheduler json help",
}
"""Sections of the help, and their options in order; other options go to `Options`."""
COLUMN: Final = 24
"""Maximum width of an option's name that has its text beside it, not below."""
METAVARS: Final = {
    "ADDRESS": "scheduler",
    "API_URL|DIR|s3://...": "to publish",
    "ASSET": "mask",
    "ASSET|PATH": "reference",
    "A/B": "datetime",
    "CODE": "scl_cloud scl_shadow",
    "DIR": "directory folder local_roots model_cache pictures",
    "DIR|s3://...": "masks out",
    "F": "cloud_thr shadow_thr",
    "FILE": "collection_config file page",
    "FILE|GEOJSON|WKT": "intersects",
    "HOST": "private_hosts",
    "ID": "collection ids",
    "K:V": "catalog_header header",
    "LOCAL=URL": "source_root",
    "M": "buffer max_halo resolution tolerance",
    "M2": "hole_area min_area",
    "N": "max_items seed size threads workers",
    "NAME|PATH": "cloud_model shadow_model",
    "P": "max_cloud_cover",
    "S": "retry_seconds",
    "TILE": "tile",
    "URL": "asset_root",
    "URL|PATH": "catalog",
    "W S E N": "bbox",
}
"""What the help shows for the values of options."""
OPTION_NAMES: Final = {"private_hosts": "allow-host", "local_roots": "allow-folder", "folder": "out", "page": "out"}
"""Options whose name differs from their parameter's."""
VARIABLES: Final = {"catalog": "CLOUDMASK_CATALOG", "model_cache": "CLOUDMASK_MODEL_CACHE"}
MINIMUMS: Final = {"tolerance": 0, "workers": 1}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The options of a search: a catalog, the filters, and the headers for its server.

    Attributes:
        catalog: STAC API or static catalog.
        collection: Collection to search; repeatable.
        bbox: Box in degrees of longitude and latitude.
        intersects: Area in degrees, or a vector file, whose features are merged.
        datetime: Instant or interval; `..` is an open end.
        max_cloud_cover: Only items whose stated cloud cover is at most this (%).
        tile: MGRS tile, such as 33TWL.
        ids: Item id; repeatable.
        max_items: At most N items.
        catalog_header: HTTP header for the catalog; repeatable, or one per line in $CLOUDMASK_CATALOG_HEADERS.
    """

    catalog: str | None = None
    collection: tuple[str, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    intersects: str | None = None
    datetime: str | None = None
    max_cloud_cover: float | None = None
    tile: str | None = None
    ids: tuple[str, ...] = ()
    max_items: int | None = None
    catalog_header: tuple[str, ...] = ()

    @property
    def wanted(self) -> dict[str, Any]:
        """Arguments for `stac_cloudmask.search` and `Query`."""
        return {name: value for name, value in vars(self).items() if not name.startswith("catalog")}


def headers(given: Sequence[str], variable: str = HEADERS) -> dict[str, str]:
    """Return header values by name, also from the environment; errors give a position only, as values may be secret."""
    return _pairs(given or os.environ.get(variable, "").splitlines(), ":", "header number {} is not NAME:VALUE")


def source_roots(given: Sequence[str]) -> dict[str, str]:
    """Return URLs by local folder."""
    return _pairs(given, "=", "--source-root number {} is not LOCAL=URL: a local folder and its URL")


def _pairs(texts: Sequence[str], sign: str, otherwise: str) -> dict[str, str]:
    found = {}
    for number, text in enumerate(texts, start=1):
        name, _, value = map(str.strip, text.partition(sign))
        if not (name and value):
            raise ConfigError(otherwise.format(number))
        found[name] = value
    return found


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option or argument for each parameter, as typer takes it.

    A parameter whose type is a dataclass has an option for each field. A repeatable option is a tuple.
    """
    own = inspect.signature(function, eval_str=True).parameters
    bundles: dict[str, Any] = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}

    @wraps(function)
    def called(**given: Any) -> None:  # noqa: ANN401  (typer checks their types)
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        for bundle, kind in bundles.items():
            values[bundle] = kind(**{one.name: values.pop(one.name) for one in fields(kind) if one.name in values})
        function(**values)

    parameters = [*_parameters(function), *chain.from_iterable(map(_parameters, bundles.values()))]
    vars(called)["__signature__"] = inspect.Signature(parameters)  # where typer looks
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    called.__doc__ = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    return called


def _parameters(function: Callable[..., object]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function, or the fields of a dataclass, as typer takes them."""
    entry = re.compile(r"^    (\w+): (.*?)(?=^    \w+: |\n\n|\Z)", flags=re.MULTILINE | re.DOTALL)
    helps = {name: " ".join(words.split()) for name, words in entry.findall(inspect.getdoc(function) or "")}
    for name, one in inspect.signature(function, eval_str=True).parameters.items():
        if name == "area" or is_dataclass(one.annotation):  # --clip sets the area
            continue
        look: dict[str, Any] = {"help": helps[name], "metavar": _group(METAVARS, name), "min": MINIMUMS.get(name)}
        if one.kind is one.KEYWORD_ONLY:
            flag = f"--{OPTION_NAMES.get(name, name).replace('_', '-')}"
            option = typer.Option(flag, envvar=VARIABLES.get(name), **look)
        else:
            option = typer.Argument(**look)
        yield one.replace(annotation=Annotated[_listed(one.annotation), option])


def _group(groups: Mapping[str, str], name: str) -> str | None:
    """Return the group that lists a name."""
    return next((group for group, names in groups.items() if name in names.split()), None)


def _listed(kind: Any) -> Any:  # noqa: ANN401  (an annotation)
    """Return the type of an option: a list for a tuple of any length."""
    for one in (kind, *get_args(kind)):
        if get_args(one)[1:] == (...,):
            return types.GenericAlias(list, get_args(one)[0]) | None
    return kind


class PlainCommand(TyperCommand):
    """A command whose help has a section for each group of options, and no boxes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  (typer has its own copy of click)
        """Write arguments and options, see click."""
        sections: dict[str, dict[str, Any]] = {title: dict.fromkeys(names.split()) for title, names in PANELS.items()}
        for one in self.get_params(ctx):
            title = _group(PANELS, one.name) or "Options"
            sections["Arguments" if one.param_type_name == "argument" else title][one.name] = one.get_help_record(ctx)
        formatter.write_paragraph()
        for title, records in sections.items():
            if shown := list(filter(None, records.values())):
                formatter.write_heading(title)
                with formatter.indentation():
                    formatter.write_dl(shown, col_max=COLUMN)
