"""What became of an item: the small record that a task returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

Status = Literal["done", "up-to-date", "revised", "failed", "planned"]
Kind = Literal["input", "infrastructure", "unexpected"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a mask would cost, before anything is done.

    Attributes:
        pixels: Of the mask.
        bytes: To be read: of the files as the disk or the item states them, else of their pixels as their headers do;
            of overviews alone where those are read. None where nothing says it.
        windows: That the models are asked for, at most: those without data are skipped.
        computed: Pixels in these, counted for each model that computes them.
        start: Wall seconds that a process takes once, before its first item: for libraries and models.
        seconds: Wall seconds of this item on this machine, as long as the network keeps up.
        memory: Most resident bytes of the process.
    """

    pixels: int
    bytes: int | None
    windows: int
    computed: int
    start: float
    seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one item.

    Attributes:
        item_id: Id of the source item, as it was found or asked for.
        status: ``done``: a mask was made; ``up-to-date``: the same mask was there already; ``failed``: see ``error``;
            ``revised``: other dates changed a mask after it was done; ``planned``: a dry run would make a mask.
        output: Href of the output item, where there is one.
        cover: Percent of the valid pixels by class name, and ``nodata`` in percent of all pixels.
        product_cover: Cloud cover in percent that the source item states, if it does.
        error: One line: what, where, what was found and what would help.
        kind: ``input``: the same input will fail again; ``infrastructure``: it may succeed later; ``unexpected``: a
            fault of this package or of one that it uses.
        notes: What was decided on the way that the user may want to know.
        published: Href of the item where it was published a second time.
        attempts: How often the item was tried.
        seconds: Wall time by stage.
        estimate: What the mask would cost, where it is ``planned``.
    """

    item_id: str
    status: Status
    output: str | None = None
    cover: Mapping[str, float] = field(default_factory=dict)
    product_cover: float | None = None
    error: str | None = None
    kind: Kind | None = None
    notes: tuple[str, ...] = ()
    published: str | None = None
    attempts: int = 1
    seconds: Mapping[str, float] = field(default_factory=dict)
    estimate: Estimate | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from stac_cloudmask.notebook import result_html  # noqa: PLC0415  (loads the libraries for pictures)

        return result_html(self)
