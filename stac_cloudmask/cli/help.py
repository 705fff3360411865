"""Help as plain text, option by option: it fits small screens, and terminals that know ASCII only."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperCommand

from stac_cloudmask.cli.options import RUN

FIRST: Final = (
    "out", "catalog", "collection", "bbox", "datetime", "max_cloud_cover", "clip", "votes", "workers", "dry_run",
)  # fmt: skip
"""The options of ``process`` that matter first."""
MOST_USED: Final = "Options that matter first"
ARGUMENTS, OPTIONS = "Arguments", "Options"
MANY: Final = 20
"""A command with more options than this says first which of them matter."""
WIDTH: Final[dict[str, Any]] = {"max_content_width": 110}
COLUMN: Final = 24
"""Widest name of an option that has its text beside it, not below."""


class PlainCommand(TyperCommand):
    """A command whose help has a section for each group of options, and no boxes."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  (typer has its own copy of click)
        """Write arguments and options, see click."""
        parameters = self.get_params(ctx)
        first = FIRST if len(parameters) > MANY else ()
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], MOST_USED: []}
        for parameter in sorted(parameters, key=lambda one: first.index(one.name) if one.name in first else len(first)):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(_section(parameter, first), []).append(record)
        formatter.write_paragraph()
        for title, records in sections.items():
            if records:
                formatter.write_heading(title)
                with formatter.indentation():
                    formatter.write_dl(records, col_max=COLUMN)


def _section(parameter: Any, first: tuple[str, ...]) -> str:  # noqa: ANN401  (see above)
    if parameter.param_type_name == "argument":
        return ARGUMENTS
    if parameter.name in first:
        return MOST_USED
    if parameter.name == "help" and first:
        return RUN
    return str(getattr(parameter, "rich_help_panel", None) or OPTIONS)
