"""`stac-cloudmask models`: what there is, and whether it works."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich import filesize

from stac_cloudmask.cli import console, options
from stac_cloudmask.cli.help import WIDTH, PlainCommand

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress, TaskID

    from stac_cloudmask.models.spec import ModelSpec

app: Final = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, context_settings=WIDTH, help="List, show, fetch and check models."
)

ALL: Final = "all"
Name = Annotated[
    str, typer.Argument(help="Name in the catalog, path of an MLM item, or of one of FarmVibes.AI's files.")
]
Names = Annotated[list[str], typer.Argument(help=f"Names in the catalog, or `{ALL}`.")]
Checked = Annotated[
    str | None, typer.Argument(help="Name, or path of an MLM item; default: all whose weights are here.")
]


@app.command("list", cls=PlainCommand)
def list_(*, model_cache: options.ModelCache = None, json: options.Json = False) -> None:
    """The models that can be named: role, bands, window, size, license, and whether the weights are here."""
    from stac_cloudmask.models.registry import list_models  # noqa: PLC0415  (keeps --help fast)

    specs = list_models()
    if json:
        for spec in specs:
            console.put_json(_facts(spec, model_cache))
        return
    rows: list[tuple[str, ...]] = [("model", "role", "bands", "window", "size", "license", "weights")]
    rows += [_row(spec, model_cache) for spec in specs]
    console.put_columns(rows)  # in 80 columns


@app.command("show", cls=PlainCommand)
def show(name: Name, *, model_cache: options.ModelCache = None, json: options.Json = False) -> None:
    """All that a model's item says.

    Example: `stac-cloudmask models show ukis-csmask-4b-l2a`
    """
    from stac_cloudmask.models.registry import find_model  # noqa: PLC0415  (keeps --help fast)

    facts = _facts(find_model(name), model_cache)
    if json:
        console.put_json(facts)
    else:
        console.fields(name, [(key.replace("_", " "), value) for key, value in facts.items()])


@app.command("fetch", cls=PlainCommand)
def fetch(names: Names, *, model_cache: options.ModelCache = None) -> None:
    """Download weights into the cache; what is not exactly what the item promises leaves nothing behind.

    Example: `stac-cloudmask models fetch farmvibes-cloud-2 farmvibes-shadow`
    """
    from stac_cloudmask.models.registry import find_model, list_models  # noqa: PLC0415
    from stac_cloudmask.models.weights import fetch_model  # noqa: PLC0415  (keeps --help fast)

    specs = list_models() if ALL in names else [find_model(name) for name in names]
    with console.downloads() as bars:
        for spec in specs:
            bar = _Bar(bars, bars.add_task(spec.name, total=spec.file_size))
            console.put(f"{spec.name}  {fetch_model(spec, cache=model_cache, progress=bar)}")


@app.command("check", cls=PlainCommand)
def check(name: Checked = None, *, model_cache: options.ModelCache = None) -> None:
    """Run models on a fixed chip and say what does not fit what their items state.

    Example: `stac-cloudmask models check my-model.json`
    """
    from stac_cloudmask.models.check import check_model  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.models.registry import find_model, list_models  # noqa: PLC0415
    from stac_cloudmask.models.weights import is_here  # noqa: PLC0415

    specs = [find_model(name)] if name else [spec for spec in list_models() if is_here(spec, model_cache)]
    failed = False
    for spec in specs:
        findings = check_model(spec, cache=model_cache)
        failed |= any(finding.level == "error" for finding in findings)
        console.put(f"{spec.name}  {'ok' if not findings else f'{len(findings)} finding(s)'}")
        for finding in findings:
            console.put(f"  {finding.level}: {finding.text}")
    if failed:
        raise typer.Exit(1)


class _Bar:
    """A bar of rich that pooch moves along."""

    total = 0

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def update(self, count: int) -> None:
        self._bars.update(self._task, total=self.total, advance=count)

    def reset(self) -> None:
        self._bars.update(self._task, completed=0)

    def close(self) -> None:
        self._bars.stop_task(self._task)


def _facts(spec: ModelSpec, cache: Path | None) -> dict[str, object]:
    from stac_cloudmask.models.weights import is_here  # noqa: PLC0415  (keeps --help fast)

    return {**asdict(spec), "weights_here": is_here(spec, cache)}


def _row(spec: ModelSpec, cache: Path | None) -> tuple[str, ...]:
    window = spec.window
    sides = str(window.size) if window.multiple == 0 else f"<= {window.size}"
    size = "" if spec.file_size is None else filesize.decimal(spec.file_size)
    here = "installed" if _facts(spec, cache)["weights_here"] else "not downloaded"
    return spec.name, "+".join(spec.roles), f"{len(spec.bands)}", sides, size, spec.license or "", here
