"""The commands, put together, and what an error looks like."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Annotated, Final

import typer

from stac_cloudmask import __version__
from stac_cloudmask.cli import commands, console, models, process
from stac_cloudmask.cli.help import WIDTH, PlainCommand
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.stac.hrefs import redact

app: Final = typer.Typer(
    name="stac-cloudmask",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=WIDTH,
    help="Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item.",
    epilog="Exit code 0: all done or up to date; 1: some items failed; 2: the command was wrong.",
)
WEST_AND_SOUTH: Final = {**WIDTH, "ignore_unknown_options": True}
"""Lets a negative coordinate be an argument, where a command line would take it for an option."""
_state: Final = {"verbose": False}


def _version(value: bool) -> None:  # noqa: FBT001  (typer's callback)
    if value:
        console.put(__version__)
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more, and show tracebacks.")] = False,  # noqa: FBT002
    version: Annotated[  # noqa: ARG001, FBT002
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    _state["verbose"] = verbose
    console.log(verbose=verbose)


COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "search": commands.search,
    "process": process.process,
    "report": commands.report,
    "publish": commands.publish,
    "evaluate": commands.evaluate,
    "export": commands.export,
    "explain": commands.explain,
    "demo": commands.demo,
}
for name, command in COMMANDS.items():
    app.command(
        name,
        cls=PlainCommand,
        context_settings=WEST_AND_SOUTH if name == "explain" else WIDTH,
        no_args_is_help=name == "process",
    )(command)
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    warnings.showwarning = _show_warning
    try:
        app()
    except StacCloudmaskError as error:
        if _state["verbose"]:
            console.stderr.print(redact(traceback.format_exc()), markup=False, soft_wrap=True)
        console.stderr.print(f"error: {redact(str(error))}", style="red", markup=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    console.stderr.print(f"{category.__name__}: {message}", style="yellow", markup=False, soft_wrap=True)
