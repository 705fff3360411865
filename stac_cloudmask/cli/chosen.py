"""What the user of `process` can choose, option by option."""

from __future__ import annotations

from typing import Annotated

import typer

from stac_cloudmask.cli import options
from stac_cloudmask.config import BoaOffset, Loader, Merge, MissingScl, Provider

Items = Annotated[list[str] | None, typer.Argument(help="Item ids (with --catalog), item URLs or item JSON paths.")]
Out = Annotated[
    str, typer.Option(metavar="DIR|s3://...", help="Where the catalog is written.", rich_help_panel=options.OUTPUT)
]
CloudModel = Annotated[
    list[str],
    typer.Option(help="Name or path; give it several times for an ensemble.", rich_help_panel=options.MODEL),
]
ShadowModel = Annotated[str, typer.Option(help="Name or path.", rich_help_panel=options.MODEL)]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="Probability above which the model votes, whole percent; default: the policy's.",
        rich_help_panel=options.MODEL,
    ),
]
Policy = Annotated[Merge, typer.Option("--merge", help="Merge policy.", rich_help_panel=options.MERGE)]
Buffer = Annotated[
    float | None,
    typer.Option(metavar="M", help="Metres by which cloud and shadow grow; 0: none.", rich_help_panel=options.MERGE),
]
MinArea = Annotated[
    float | None,
    typer.Option(metavar="M2", help="Smallest object kept, square metres; 0: all.", rich_help_panel=options.MERGE),
]
HoleArea = Annotated[
    float | None,
    typer.Option(metavar="M2", help="Clear holes below this are closed; 0: none.", rich_help_panel=options.MERGE),
]
Temporal = Annotated[
    bool,
    typer.Option(
        "--temporal",
        help="Then let the dates of each tile correct bright surfaces that the model takes for cloud; implies --votes.",
        rich_help_panel=options.MERGE,
    ),
]
TemporalDates = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="A surface is bright that is such cloud on more than N dates, of ten before to ten after.",
        rich_help_panel=options.MERGE,
    ),
]
InMemory = Annotated[
    bool, typer.Option("--in-memory", help="Load the whole scene first; same result.", rich_help_panel=options.READ)
]
LoaderName = Annotated[
    Loader, typer.Option("--loader", help="Library that reads pixels.", rich_help_panel=options.READ)
]
Resolution = Annotated[
    float | None,
    typer.Option(
        metavar="M", help="Pixel size of the mask, a multiple of the finest band's.", rich_help_panel=options.READ
    ),
]
Offset = Annotated[
    BoaOffset, typer.Option("--boa-offset", help="Added to digital numbers.", rich_help_panel=options.READ)
]
Missing = Annotated[
    MissingScl,
    typer.Option("--missing-scl", help="Items without SCL: an error, or models alone.", rich_help_panel="Reading"),
]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="Also publish probabilities.", rich_help_panel=options.OUTPUT)
]
Votes = Annotated[bool, typer.Option("--votes", help="Also publish who said what.", rich_help_panel=options.OUTPUT)]
MaskOnly = Annotated[
    bool, typer.Option("--mask-only", help="Leave the source's bands out of the item.", rich_help_panel=options.OUTPUT)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make masks anew that are up to date.", rich_help_panel=options.OUTPUT)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it would cost.", rich_help_panel=options.RUN)
]
Publish = Annotated[
    str | None,
    typer.Option(
        metavar="API_URL|s3://...",
        help="Publish each item to a STAC API or another store, too, as soon as it is done.",
        rich_help_panel=options.PUBLISH,
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes of a local Dask cluster.", rich_help_panel=options.RUN)
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="An existing Dask cluster.", rich_help_panel=options.RUN)
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads for inference.", rich_help_panel=options.RUN)]
Runtime = Annotated[Provider, typer.Option("--provider", help="Runtime.", rich_help_panel=options.RUN)]
