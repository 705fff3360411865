"""The command `stac-cloudmask models`: list, show, fetch and check models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer
from rich.filesize import decimal
from rich.progress import DownloadColumn, TransferSpeedColumn

from stac_cloudmask.cli import console
from stac_cloudmask.cli.options import PlainCommand, command
from stac_cloudmask.progress import bars

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stac_cloudmask.models.spec import ModelSpec

app: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show, fetch and check models.")


@app.command("list", cls=PlainCommand)
@command
def list_(*, model_cache: Path | None = None, json: bool = False) -> None:
    """List the models with role, bands, window, size and license, and whether their weights are installed.

    Args:
        model_cache: Directory of downloaded weights; default: the user's cache.
        json: Print JSON lines.
    """
    from stac_cloudmask.models.registry import list_models  # noqa: PLC0415  (keeps --help fast)

    rows = [("model", "role", "bands", "window", "size", "license", "weights")]
    for spec in list_models():
        facts = _facts(spec, model_cache)
        if json:
            console.put_json(facts)
        window = str(spec.window.size) if spec.window.multiple == 0 else f"<= {spec.window.size}"
        size = "" if spec.file_size is None else decimal(spec.file_size)
        here = "installed" if facts["weights_here"] else "not downloaded"
        rows.append((spec.name, "+".join(spec.roles), f"{len(spec.bands)}", window, size, spec.license or "", here))
    if not json:
        console.put_columns(rows)  # fits into 80 columns


@app.command("show", cls=PlainCommand)
@command
def show(name: str, *, model_cache: Path | None = None, json: bool = False) -> None:
    """Show everything that a model's item states.

    Example: `stac-cloudmask models show ukis-csmask-4b-l2a`

    Args:
        name: Name in the catalog, path of an MLM item, or of one of FarmVibes.AI's files.
        model_cache: Directory of downloaded weights; default: the user's cache.
        json: Print JSON lines.
    """
    from stac_cloudmask.models.registry import find_model  # noqa: PLC0415  (keeps --help fast)

    facts = _facts(find_model(name), model_cache)
    if json:
        console.put_json(facts)
    else:
        console.fields(name, [(key.replace("_", " "), value) for key, value in facts.items()])


@app.command("fetch", cls=PlainCommand)
@command
def fetch(names: tuple[str, ...], *, model_cache: Path | None = None) -> None:
    """Download weights into the cache; a file with the wrong size or hash is discarded.

    Example: `stac-cloudmask models fetch farmvibes-cloud-2 farmvibes-shadow`

    Args:
        names: Names in the catalog, or `all`.
        model_cache: Directory of downloaded weights; default: the user's cache.
    """
    from stac_cloudmask.models.registry import fetch_model, find_model, list_models  # noqa: PLC0415

    specs = list_models() if "all" in names else [find_model(name) for name in names]
    with bars(console.stderr, DownloadColumn(), TransferSpeedColumn()) as shown:
        for spec in specs:
            bar = _Bar(shown, shown.add_task(spec.name, total=spec.file_size))
            console.put(f"{spec.name}  {fetch_model(spec, cache=model_cache, progress=bar)}")


@app.command("check", cls=PlainCommand)
@command
def check(name: str | None = None, *, model_cache: Path | None = None) -> None:
    """Run models on a fixed chip and report contradictions to their items.

    Example: `stac-cloudmask models check my-model.json`

    Args:
        name: Name, or path of an MLM item; default: all that are installed.
        model_cache: Directory of downloaded weights; default: the user's cache.
    """
    from stac_cloudmask.models.check import check_model  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.models.registry import find_model, is_here, list_models  # noqa: PLC0415

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


@dataclass
class _Bar:
    """A rich progress bar that pooch updates."""

    bars: Progress
    task: TaskID
    total: int = 0

    def update(self, count: int) -> None:
        self.bars.update(self.task, total=self.total, advance=count)

    def reset(self) -> None:
        self.bars.update(self.task, completed=0)

    def close(self) -> None:
        self.bars.stop_task(self.task)


def _facts(spec: ModelSpec, cache: Path | None) -> dict[str, object]:
    from stac_cloudmask.models.registry import is_here  # noqa: PLC0415  (keeps --help fast)

    return {**asdict(spec), "weights_here": is_here(spec, cache)}
