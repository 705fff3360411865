"""The command-line application and its error output."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Annotated, Final

import typer

from stac_cloudmask import __version__
from stac_cloudmask.cli import commands, console
from stac_cloudmask.cli.options import PlainCommand, command
from stac_cloudmask.errors import ConfigError, StacCloudmaskError

app: Final = typer.Typer(
    name="stac-cloudmask",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 110},
    help="Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item.",
    epilog="Exit code 0: all done or up to date; 1: some items failed; 2: the command was wrong.",
)
logger = logging.getLogger(__name__)


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
    console.log(verbose=verbose)


models: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show, fetch and check models.")
for function in commands.COMMANDS:
    app.command(
        cls=PlainCommand,
        no_args_is_help=function is commands.process,
        # a negative coordinate is an argument, but would be parsed as an option
        context_settings={"ignore_unknown_options": function is commands.explain},
    )(command(function))
for name, function in commands.MODEL_COMMANDS.items():
    models.command(name, cls=PlainCommand)(command(function))
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line; an error is shown as one line and sets the exit code."""
    warnings.showwarning = _show_warning
    try:
        app()
    except StacCloudmaskError as error:
        logger.debug("raised here:", exc_info=True)
        console.note(f"error: {error}", "red")
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    console.note(f"{category.__name__}: {message}", "yellow")
