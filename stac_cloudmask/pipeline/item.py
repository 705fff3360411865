"""One item: plan, mask, write."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pystac
from pystac.utils import datetime_to_str
from shapely.geometry import mapping

from stac_cloudmask.config import Settings
from stac_cloudmask.models.registry import is_followable, model_document, weights_sha256
from stac_cloudmask.pipeline.mask import THREADS, Mask, Models, make_mask, models_of, named, part_of
from stac_cloudmask.pipeline.result import VERSION, Progress, Result, Status, Stopwatch, failed, software
from stac_cloudmask.stac import mask_item
from stac_cloudmask.stac.assets import ASSETS, OWN, file_name_of
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.cog import write_cog, write_thumbnail
from stac_cloudmask.stac.collection import read_config
from stac_cloudmask.stac.geometry import bbox_of, check_footprint
from stac_cloudmask.stac.hrefs import unsigned
from stac_cloudmask.stac.mask_item import MaskFacts, ModelUse
from stac_cloudmask.stac.metadata import number

logger = logging.getLogger(__name__)

MODELS: Final = "models"
"""Folder in the output catalog for copies of model items that other machines cannot reach."""
DESCRIPTIVE: Final = frozenset({"title", "href", "item_href", "file_size", "sha256", "license", "source"})
"""Fields of a model's item that do not affect its results; the weights count by their own checksum."""
CHOICES: Final = frozenset({"cloud_model", "shadow_model"})
"""Settings that name models, which count by the models' contents."""
TEMPORARY: Final = frozenset({"msft:expiry"})
"""Properties that depend on how an item was fetched."""


@dataclass(frozen=True)
class Plan:
    """The planned mask of an item.

    Attributes:
        item: The source.
        part: The source as the mask's item describes it: the same, or the part of it in the area that is masked.
        settings: Settings of the masks.
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
        """Return a result without a mask."""
        stated = number(self.item.properties.get("eo:cloud_cover")) if self.part is self.item else None
        return Result(item_id=self.item.id, status=status, product_cover=stated)

    def made(self, catalog: OutputCatalog) -> Result | None:
        """Return the result of the same mask if it exists, is complete, and may be kept."""
        body = None if self.settings.overwrite else catalog.stored(self.collection_id, self.item_id)
        if body is None or body["properties"].get(f"{OWN}fingerprint") != self.fingerprint:
            return None
        classes = body["assets"]["cloud_mask"].get("classification:classes", [])
        return replace(
            self.result("up-to-date"),
            output=catalog.href(self.collection_id, self.item_id),
            cover=mask_item.cover_of({info["value"]: info["count"] for info in classes if "count" in info}),
            notes=tuple(body["properties"].get(f"{OWN}notes", ())),
            seconds=body["properties"].get(f"{OWN}seconds", {}),
        )


def plan_item(item: pystac.Item, *, settings: Settings) -> Plan:
    """Return the plan for an item; nothing is read.

    Raises:
        OutsideAreaError: The area does not touch the item.
        StacCloudmaskError: A model is unknown, or the id of the item or its collection is not valid for an output.
    """
    check_footprint(item)
    part = item if settings.area is None else clipped_item(item, settings.area)
    models = models_of(settings)
    body = {
        "item": _inputs(item),
        "models": [
            [_without(asdict(spec), DESCRIPTIVE), weights_sha256(spec), roles] for spec, roles in models.items()
        ],
        "settings": _without(settings.fingerprint_fields(), CHOICES),
        "version": VERSION,
    }
    fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
    own = read_config(settings.collection_config) if settings.collection_config else {}
    collection_id = own.get("id") or mask_item.output_collection(item.collection_id)
    return Plan(item, part, settings, models, collection_id, mask_item.output_id(part.id), fingerprint)


def clipped_item(item: pystac.Item, area: str) -> pystac.Item:
    """Return the source item clipped to an area, from which the item of the mask is made.

    Its id ends with a hash of the area; geometry and bbox are those of the area within the item's footprint.

    Raises:
        OutsideAreaError: The area does not touch the item's footprint.
    """
    part = part_of(item, area)
    clipped = item.clone()
    clipped.id = f"{item.id}_{hashlib.sha256(area.encode()).hexdigest()[:8]}"
    clipped.geometry, clipped.bbox = mapping(part), bbox_of(part)
    return clipped


def _inputs(item: pystac.Item) -> list[object]:
    """Return the parts of an item that do not depend on fetching: without links, signatures and expiry times."""
    body = item.to_dict(include_self_link=False, transform_hrefs=False)
    properties = _without(body["properties"], TEMPORARY)
    assets = {key: asset | {"href": unsigned(asset["href"])} for key, asset in body["assets"].items()}
    return [item.id, item.collection_id, body["geometry"], properties, assets]


def _without(fields: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def keep_models(models: Models, catalog: OutputCatalog) -> tuple[ModelUse, ...]:
    """Return the models for the provenance; model items that other machines cannot reach are copied to the catalog.

    Raises:
        ModelError: A model's item or weights do not exist.
        WriteError: The catalog cannot be written.
    """
    uses = []
    for spec, roles in models.items():
        is_public = is_followable(spec)
        href = spec.item_href if is_public else catalog.write_document(MODELS, spec.name, model_document(spec))
        uses.append(ModelUse(name=spec.name, roles=roles, sha256=weights_sha256(spec), href=href))
    return tuple(uses)


def process_item(item: pystac.Item, *, settings: Settings, out: str, progress: Progress | None = None) -> Result:
    """Mask an item and write mask and output item to the catalog ``out``, unless they exist already.

    The collection is not changed: list the item with ``OutputCatalog.link`` after it is written.

    Raises:
        StacCloudmaskError: The message states what failed, where, and a remedy; no incomplete output is left.
    """
    plan = plan_item(item, settings=settings)
    catalog = OutputCatalog(out)
    if (made := plan.made(catalog)) is not None:
        logger.info("item %r: %s is up to date", item.id, made.output)
        return made
    watch = Stopwatch(progress)
    with catalog.workdir() as folder:  # first, because all work would be lost if the output cannot be written
        uses = keep_models(plan.models, catalog)
        mask = _written(make_mask(item, settings=settings, watch=watch), settings)
        with watch.stage("write"):
            watch.progress("write", 0, 1)
            files = _write_files(mask, folder, plan)
            facts = _facts(plan, mask, uses, files, watch.seconds)
            href = catalog.write_item(mask_item.mask_item(plan.part, facts), files)
            watch.progress("write", 1, 1)
    logger.info("item %r: wrote %s in %.1f s", item.id, href, sum(watch.seconds.values()))
    cover = mask_item.cover_of(facts.counts)
    return replace(plan.result("done"), output=href, cover=cover, notes=mask.notes, seconds=watch.seconds)


def _written(mask: Mask, settings: Settings) -> Mask:
    """Return a mask without arrays that are not written, which would take memory beside the files."""
    none = np.empty((0, 0), np.uint8)
    if not settings.probabilities:
        mask = replace(mask, evidence=replace(mask.evidence, cloud=none, shadow=none))
    return mask if settings.votes else replace(mask, decision=replace(mask.decision, votes=none))


def _write_files(mask: Mask, folder: Path, plan: Plan) -> dict[str, Path]:
    """Write the assets to a folder, and return the files by asset key."""
    decision, settings = mask.decision, plan.settings
    tags = {  # metadata for users of the file without its item
        "TIFFTAG_SOFTWARE": f"stac_cloudmask {VERSION}",
        "SOURCE_ITEM": plan.item.id,
        "SOURCE_COLLECTION": plan.item.collection_id or "",
        "MASK_ITEM": plan.item_id,
        "MODELS": named(plan.models),
        "MERGE_POLICY": settings.merge,
    }
    layers = {"cloud_mask": decision.class_map, "scl": decision.scl}
    if settings.probabilities:
        layers |= {"cloud_probability": mask.evidence.cloud, "shadow_probability": mask.evidence.shadow}
    if settings.votes:
        layers["mask_votes"] = decision.published_votes
    paths = {key: folder / file_name_of(key) for key in ASSETS}
    for key, layer in layers.items():
        if layer is not None:
            write_cog(folder, key, layer, mask.grid, tags=tags, threads=settings.threads or THREADS)
    write_thumbnail(paths["thumbnail"], decision.class_map, quicklook=mask.quicklook)
    return {key: path for key, path in paths.items() if path.exists()}


def _facts(
    plan: Plan, mask: Mask, models: tuple[ModelUse, ...], files: Mapping[str, Path], seconds: Mapping[str, float]
) -> MaskFacts:
    with_product = "merged with the product's scene classification" if mask.sources.scl else "without a product mask"
    notes = "".join(f" {note[:1].upper()}{note[1:]}." for note in mask.decision.notes)
    return MaskFacts(
        settings=plan.settings,
        sources=mask.sources,
        source_id=plan.item.id,
        collection_id=plan.collection_id,
        models=models,
        grid=mask.grid,
        counts=mask_item.class_counts(mask.decision.class_map),
        files={key: mask_item.file_fields(path) for key, path in files.items()},
        parameters=mask.decision.parameters,
        fingerprint=plan.fingerprint,
        created=datetime_to_str(datetime.now(UTC), timespec="seconds"),
        software={"stac_cloudmask": VERSION, **software()},
        lineage=f"ONNX models {named(plan.models)}, {with_product}.{notes}",
        notes=mask.notes,
        seconds=dict(seconds),
    )


def attempt(item: pystac.Item, *, settings: Settings, out: str, progress: Progress | None = None) -> Result:
    """Process an item; errors become its result and are not raised."""
    try:
        return process_item(item, settings=settings, out=out, progress=progress)
    except Exception as error:  # noqa: BLE001  (other items may still succeed)
        return failed(item.id, error)
