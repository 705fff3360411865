"""What a mask would cost: pixels, bytes and windows are counted, time and memory follow from a short calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from stac_cloudmask.calibration import Pace, calibrate, parts_of, work_of
from stac_cloudmask.core.policy import SEED_MERGE
from stac_cloudmask.masking import THREADS
from stac_cloudmask.models.cpus import usable_cpus
from stac_cloudmask.results import Estimate
from stac_cloudmask.stac.metadata import valid_share
from stac_cloudmask.stac.sizing import size_up

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.predict import Role
    from stac_cloudmask.models.metadata import ModelSpec
    from stac_cloudmask.stac.bands import Sources

READ_SECONDS: Final = 6e-9
"""Per pixel that is read of a band: what reading takes from inference on all threads, for the most part beside it.

Of a tile of 10980 x 10980 pixels with four bands and SCL, which took 3 s of its run (``benchmarks/tile.py``)."""
FINISH_SECONDS: Final = 6.6e-8
"""Per pixel of the mask, to merge and to write: 8 s of the same tile."""
ITEM_SECONDS: Final = 0.3
"""For an item of any size, to open and to publish it: items of 256 x 256 pixels take so much beside their model
(``benchmarks/throughput.py``)."""
PERCENTS: Final = 2
"""Bytes per pixel of the mask: what the models say of cloud and of shadow. Merging and writing take no more than
inference has given back by then."""


@dataclass(frozen=True)
class Estimator:
    """Estimates the items of a run; this machine is calibrated once, at the first.

    Attributes:
        models: Of the run.
        settings: Of the run; threads as one worker has them.
    """

    models: Mapping[ModelSpec, tuple[Role, ...]]
    settings: Settings

    @cached_property
    def pace(self) -> Pace:
        """Of this machine.

        Raises:
            StacCloudmaskError: A model or the provider does not work.
        """
        return calibrate(self.models, self.settings, as_seed=self._as_seed)

    @property
    def _as_seed(self) -> bool:
        return self.settings.merge == SEED_MERGE

    def of(self, item: pystac.Item, sources: Sources) -> Estimate:
        """What the mask of an item would cost; headers are read where the item's metadata lack something.

        Raises:
            StacCloudmaskError: The item cannot be masked, as far as metadata and headers tell.
        """
        settings, pace = self.settings, self.pace  # first, as sizing up may load libraries whose time is to be counted
        threads = settings.threads or THREADS
        sizes = size_up(sources, resolution=settings.resolution, loader=settings.loader, threads=threads)
        pixels = sizes.grid.height * sizes.grid.width
        work = work_of(sizes.grid.shape, parts_of(self.models, settings), as_seed=self._as_seed)
        inferring = valid_share(item) * work.computed * pace.pixel
        held = sizes.held(in_memory=settings.in_memory)
        return Estimate(
            pixels=pixels,
            bytes=sizes.bytes,
            windows=work.windows,
            computed=work.computed,
            start=round(pace.start, 3),
            seconds=round(inferring + READ_SECONDS * sizes.pixels + FINISH_SECONDS * pixels + ITEM_SECONDS, 3),
            memory=pace.memory + held + PERCENTS * pixels,
        )


def shared_out(settings: Settings, workers: int | None) -> Settings:
    """Settings whose threads are what one of ``workers`` on this machine has."""
    if settings.threads is not None or workers is None:
        return settings
    return replace(settings, threads=max(1, usable_cpus() // workers))
