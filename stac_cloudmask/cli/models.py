"""`stac-cloudmask models`: what there is, and whether it works."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stac_cloudmask.cli import console, options
from stac_cloudmask.errors import StacCloudmaskError

if TYPE_CHECKING:
    from stac_cloudmask.models.metadata import ModelSpec

app: Final = typer.Typer(no_args_is_help=True, help="List, show, fetch and check models.")

Name = Annotated[str, typer.Argument(help="Name in the catalog, path of an MLM item, or of one of the seed's files.")]


@app.command("list")
def list_(*, json: options.Json = False) -> None:
    """The models that can be named: role, bands, window, size, license, and whether the weights are here."""
    from stac_cloudmask.models.registry import list_models  # noqa: PLC0415  (keeps --help fast)

    specs = list_models()
    if json:
        for spec in specs:
            console.put_json({**asdict(spec), "weights_here": _is_here(spec)})
        return
    columns = ("model", "role", "bands", "window", "bytes", "license", "weights")
    console.table("Models", columns, [_row(spec) for spec in specs], on_stdout=True)


@app.command("show")
def show(name: Name, *, json: options.Json = False) -> None:
    """All that a model's item says."""
    from stac_cloudmask.models.registry import find_model  # noqa: PLC0415  (keeps --help fast)

    facts = {**asdict(spec := find_model(name)), "weights_here": _is_here(spec)}
    if json:
        console.put_json(facts)
    else:
        console.table(spec.name, ("field", "value"), [(k, str(v)) for k, v in facts.items()], on_stdout=True)


def _row(spec: ModelSpec) -> tuple[str, ...]:
    window = spec.window
    sides = str(window.size) if window.multiple == 0 else f"up to {window.size}, by {window.multiple}"
    size = "" if spec.file_size is None else f"{spec.file_size:,}"
    here = "here" if _is_here(spec) else "models fetch"
    return spec.name, " + ".join(spec.roles), f"{len(spec.bands)}", sides, size, spec.license or "", here


def _is_here(spec: ModelSpec) -> bool:
    from stac_cloudmask.models.fetch import locate  # noqa: PLC0415  (keeps --help fast)

    try:
        locate(spec)
    except StacCloudmaskError:
        return False
    return True
