"""One item: plan, mask, write."""

from __future__ import annotations

import hashlib
import json
import logging
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.core.classes import SCL_CLASSES
from stac_cloudmask.errors import OutsideAreaError, StacCloudmaskError
from stac_cloudmask.models.registry import is_followable, model_document
from stac_cloudmask.models.weights import weights_sha256
from stac_cloudmask.pipeline.area import clipped_item
from stac_cloudmask.pipeline.estimate import estimate_mask
from stac_cloudmask.pipeline.mask import (
    THREADS,
    Mask,
    Models,
    Progress,
    Stopwatch,
    choose_models,
    make_mask,
    no_progress,
    resolve_sources,
)
from stac_cloudmask.pipeline.result import VERSION, Result, Status, failed, software
from stac_cloudmask.stac.assets import ASSETS, OWN, VOTES, file_name_of, unsigned
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.cog import write_bits_cog, write_class_cog, write_percent_cog, write_thumbnail
from stac_cloudmask.stac.collection import read_config
from stac_cloudmask.stac.geometry import check_footprint
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.item import (
    AssetFile,
    MaskFacts,
    ModelUse,
    class_counts,
    cover_of,
    file_facts,
    mask_item,
    output_collection,
    output_id,
)
from stac_cloudmask.stac.metadata import number

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.config import Settings
    from stac_cloudmask.models.spec import ModelSpec

logger = logging.getLogger(__name__)

MODELS: Final = "models"
"""Folder in the output catalog for the items of models that nobody could follow a link to where they are."""
WORDS: Final = frozenset({"title", "href", "item_href", "file_size", "sha256", "license", "source"})
"""What a model's item says that does not change what the model does; the weights count by their own checksum."""
CHOICES: Final = frozenset({"cloud_model", "shadow_model"})
"""Settings that name models, which count by what they are."""
PASSING: Final = frozenset({"msft:expiry"})
"""Properties that come from how an item was fetched."""


@dataclass(frozen=True)
class Plan:
    """What is to be made of an item.

    Attributes:
        item: The source.
        part: The source as the mask's item describes it: the same, or the part of it in the area that is masked.
        settings: How.
        models: The models and the roles of each.
        collection_id: Collection of the output item.
        item_id: Id of the output item.
        fingerprint: Hash of inputs, models, settings and version: the same fingerprint is the same mask.
    """

    item: pystac.Item
    part: pystac.Item
    settings: Settings
    models: Models
    collection_id: str
    item_id: str
    fingerprint: str

    def result(self, status: Status) -> Result:
        """Return a record without a mask."""
        return Result(
            item_id=self.item.id, status=status, product_cover=number(self.item.properties.get("eo:cloud_cover"))
        )

    def made(self, catalog: OutputCatalog) -> Result | None:
        """Return the record of the same mask if it is there, whole, and may stay."""
        body = None if self.settings.overwrite else catalog.stored(self.collection_id, self.item_id)
        if body is None or body.get("properties", {}).get(f"{OWN}fingerprint") != self.fingerprint:
            return None
        classes = body["assets"]["cloud_mask"].get("classification:classes", [])
        return replace(
            self.result("up-to-date"),
            output=catalog.href(self.collection_id, self.item_id),
            cover=cover_of({info["value"]: info["count"] for info in classes if "count" in info}),
            notes=tuple(body["properties"].get(f"{OWN}notes", ())),
            seconds=body["properties"].get(f"{OWN}seconds", {}),
        )


def plan_item(item: pystac.Item, *, settings: Settings, models: Models | None = None) -> Plan:
    """What is to be made of an item; nothing is read.

    Raises:
        OutsideAreaError: The area does not touch the item.
        StacCloudmaskError: A model is not known, or the item's id or its collection's cannot name an output.
    """
    check_footprint(item)
    part = item if settings.area is None else clipped_item(item, settings.area)
    models = models or choose_models(settings)
    wanted = {name: value for name, value in settings.fingerprint_fields().items() if name not in CHOICES}
    body = {
        "item": _inputs(item),
        "models": [[_contract(spec), weights_sha256(spec), roles] for spec, roles in models.items()],
        "settings": wanted,
        "version": VERSION,
    }
    fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
    own = read_config(settings.collection_config) if settings.collection_config else {}
    collection_id = own.get("id") or output_collection(item.collection_id)
    return Plan(item, part, settings, models, collection_id, output_id(part.id), fingerprint)


def _inputs(item: pystac.Item) -> list[object]:
    """What an item says, however it was fetched: without its links, signatures and times of expiry."""
    body = item.to_dict(include_self_link=False, transform_hrefs=False)
    properties = {name: value for name, value in body["properties"].items() if name not in PASSING}
    assets = {key: asset | {"href": unsigned(asset["href"])} for key, asset in body["assets"].items()}
    return [item.id, item.collection_id, body["geometry"], properties, assets]


def _contract(spec: ModelSpec) -> dict[str, Any]:
    return {name: value for name, value in asdict(spec).items() if name not in WORDS}


def keep_models(models: Models, catalog: OutputCatalog) -> tuple[ModelUse, ...]:
    """The models as provenance names them; items that no link could lead to are copied into the catalog, once.

    Raises:
        ModelError: A model's item or weights are not there.
        WriteError: The catalog cannot be written.
    """
    uses = []
    for spec, roles in models.items():
        href = spec.item_href
        if not is_followable(spec):
            href = catalog.write_document(MODELS, spec.name, model_document(spec))
        uses.append(ModelUse(name=spec.name, roles=roles, sha256=weights_sha256(spec), href=href))
    return tuple(uses)


def preview_item(item: pystac.Item, *, settings: Settings, models: Models, catalog: OutputCatalog) -> Result:
    """Return what `process_item` would do, and what it would take; nothing is written.

    Raises:
        StacCloudmaskError: Metadata, headers or models already say that the item cannot be masked.
    """
    plan = plan_item(item, settings=settings, models=models)
    sources = resolve_sources(item, models=models, settings=settings)
    if (made := plan.made(catalog)) is not None:
        return made
    return replace(plan.result("planned"), estimate=estimate_mask(sources, models=models, settings=settings))


def process_item(item: pystac.Item, *, settings: Settings, out: str, progress: Progress = no_progress) -> Result:
    """Mask an item and write mask and output item into the catalog ``out``; nothing if they are there already.

    The collection is not touched: list the item with ``OutputCatalog.link`` once it is written.

    Raises:
        StacCloudmaskError: Says what failed, where, and what would help; nothing half-written is left.
    """
    plan = plan_item(item, settings=settings)
    catalog = OutputCatalog(out)
    if (made := plan.made(catalog)) is not None:
        logger.info("item %r: %s is up to date", item.id, made.output)
        return made
    watch = Stopwatch()
    with catalog.workdir() as folder:  # before all work: it would be lost where nothing can be written
        uses = keep_models(plan.models, catalog)
        mask = make_mask(
            item,
            settings=settings,
            models=plan.models,
            progress=progress,
            watch=watch,
        )
        with watch.stage("write"):
            progress("write", 0, 1)
            counts = class_counts(mask.decision.class_map)
            files = _write_files(mask, folder, plan)
            body = mask_item(plan.part, _facts(plan, mask, counts, files, uses=uses, seconds=watch.seconds))
            href = catalog.write_item(body, {key: folder / file.name for key, file in files.items()})
            progress("write", 1, 1)
    done = replace(
        plan.result("done"), output=href, cover=cover_of(counts), notes=mask.notes, seconds=dict(watch.seconds)
    )
    logger.info("item %r: wrote %s in %.1f s", item.id, href, sum(watch.seconds.values()))
    return done


def _write_files(mask: Mask, folder: Path, plan: Plan) -> dict[str, AssetFile]:
    """Write the assets into a folder; by asset key."""
    grid, decision, settings = mask.grid, mask.decision, plan.settings
    threads = settings.threads or THREADS
    tags = _tags(plan)
    with ThreadPoolExecutor(1, thread_name_prefix="thumbnail") as pool:
        drawn = pool.submit(write_thumbnail, folder / "thumbnail.png", decision.class_map, quicklook=mask.quicklook)
        write_class_cog(folder / "cloud_mask.tif", decision.class_map, grid, tags=tags, threads=threads)
        drawn.result()
    if settings.probabilities:
        for key, percent in (("cloud_probability", mask.evidence.cloud), ("shadow_probability", mask.evidence.shadow)):
            title = str(ASSETS[key]["title"])
            write_percent_cog(folder / f"{key}.tif", percent, grid, title=title, tags=tags, threads=threads)
    if settings.votes:
        write_bits_cog(folder / "mask_votes.tif", mask.votes, grid, fields=VOTES, tags=tags, threads=threads)
    if decision.scl is not None:
        title = str(ASSETS["scl"]["title"])
        write_class_cog(
            folder / "scl.tif", decision.scl, grid, classes=SCL_CLASSES, title=title, tags=tags, threads=threads
        )
    written = {key: folder / file_name_of(key) for key in ASSETS}
    return {key: file_facts(path) for key, path in written.items() if path.exists()}


def _tags(plan: Plan) -> dict[str, str]:
    """What a file says of itself where nobody has its item."""
    return {
        "TIFFTAG_SOFTWARE": f"stac_cloudmask {VERSION}",
        "SOURCE_ITEM": plan.item.id,
        "SOURCE_COLLECTION": plan.item.collection_id or "",
        "MASK_ITEM": plan.item_id,
        "MODELS": ", ".join(f"{spec.name} ({' and '.join(roles)})" for spec, roles in plan.models.items()),
        "MERGE_POLICY": plan.settings.merge,
    }


def _facts(
    plan: Plan,
    mask: Mask,
    counts: Mapping[int, int],
    files: Mapping[str, AssetFile],
    *,
    uses: tuple[ModelUse, ...],
    seconds: Mapping[str, float],
) -> MaskFacts:
    scl = mask.sources.scl
    return MaskFacts(
        grid=mask.grid,
        counts=counts,
        files=files,
        fingerprint=plan.fingerprint,
        created=datetime.now(UTC),
        version=VERSION,
        software=software(),
        lineage=_lineage(mask, plan.models),
        models=uses,
        bands=mask.sources.bands,
        product_mask=None if scl is None else scl.asset_key,
        policy=plan.settings.merge,
        parameters=mask.decision.parameters,
        settings=plan.settings.fingerprint_fields(),
        mask_only=plan.settings.mask_only,
        collection_id=plan.collection_id,
        source_id=plan.item.id,
        notes=mask.notes,
        seconds=dict(seconds),
    )


def _lineage(mask: Mask, models: Models) -> str:
    used = ", ".join(f"{spec.name} ({' and '.join(roles)})" for spec, roles in models.items())
    product = "without a product mask" if mask.sources.scl is None else "merged with the product's scene classification"
    notes = "".join(f" {note[:1].upper()}{note[1:]}." for note in mask.decision.notes)
    return f"ONNX models {used}, {product}.{notes}"


def attempt(item: pystac.Item, *, settings: Settings, out: str, progress: Progress = no_progress) -> Result:
    """Process an item; what goes wrong is its result, and nothing is raised."""
    try:
        return process_item(item, settings=settings, out=out, progress=progress)
    except OutsideAreaError as error:
        return skipped(item.id, error)
    except StacCloudmaskError as error:
        return failed(item.id, error)
    except Exception as error:
        logger.debug("item %r", item.id, exc_info=True)
        return _unexpected(item.id, error)


def skipped(item_id: str, error: OutsideAreaError) -> Result:
    """Return the record of an item that has nothing to mask in the area."""
    logger.info("skipped: %s", error)
    return Result(item_id=item_id, status="skipped", notes=(redact(str(error)),))


def _unexpected(item_id: str, error: Exception) -> Result:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"unexpected {type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {redact(str(error))}"
    return Result(
        item_id=item_id, status="failed", error=f"item {item_id!r}: {text}; please report it", kind="unexpected"
    )
