"""Whether two checkouts make the same outputs: class maps and votes by hash, items without times and versions.

    python -m benchmarks.golden write before.json     # in the one
    python -m benchmarks.golden check before.json     # in the other, on the same machine

Six real scenes of ``../shared/data``, the demo, and the five parity cases of FarmVibes.AI's workflow. Hashes hold for
one machine: another processor may round a probability the other way, see docs/farmvibes.md.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

import stac_cloudmask as scm

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SCENES = {
    "alberta-2020": ("alberta_20200615", "alberta_20200720"),
    "earth-search-33twl": ("S2A_33TWL_20230818_0_L2A",),
    "bolzano-2022": (),
    "sahara-29rkh": (),
    "cloudn-chips": ("cloudn_chip1",),
}
"""Items by collection; none stands for all."""
UNSTABLE = (
    "version",
    "software",
    "datetime",
    "created",
    "updated",
    "fingerprint",
    "checksum",
    "size",
    "lineage",
    "href",
)
"""Parts of names whose values differ from run to run or from release to release."""


def stable(value: Any) -> Any:  # noqa: ANN401
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if not any(part in k for part in UNSTABLE)}
    return [stable(one) for one in value] if isinstance(value, list) else value


def flat(value: Any, path: str = "") -> dict[str, str]:  # noqa: ANN401
    """Each leaf of nested JSON by its path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = {k: v for key, one in pairs for k, v in flat(one, f"{path}/{key}").items()}
    return inner or {path: json.dumps(value)}


def digest(array: np.ndarray) -> str:
    """Shape and hash of an array."""
    return f"{array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"


def of_catalog(out: Path) -> dict[str, Any]:
    """Everything of one output catalog."""
    found: dict[str, Any] = {}
    for path in sorted(out.glob("*/*/*_cloudmask.json")):
        found[path.stem] = stable(json.loads(path.read_text()))
        for name in ("cloud_mask.tif", "mask_votes.tif"):
            with rasterio.open(path.with_name(name)) as source:
                found[f"{path.stem}/{name}"] = digest(source.read(1))
    return found


def outputs(work: Path) -> dict[str, Any]:
    """Everything that is compared."""
    found: dict[str, Any] = {}
    for collection, ids in SCENES.items():
        catalog = json.loads((DATA / collection / "collection.json").read_text())
        every = [Path(link["href"]).stem for link in catalog["links"] if link["rel"] == "item"]
        settings = scm.Settings(votes=True, missing_scl="model-only" if collection == "cloudn-chips" else "fail")
        for name in ids or every:
            out = work / collection
            [result] = scm.process(
                name, catalog=str(DATA / "catalog.json"), collection=collection, out=out, settings=settings
            )
            if result.error:
                raise SystemExit(result.error)
        found |= of_catalog(out)
    demo = work / "demo"
    script = Path(sys.executable).with_name("stac-cloudmask")
    subprocess.run([script, "demo", "--out", demo], check=True, capture_output=True)
    for path in sorted(demo.rglob("cloud_mask.tif")):
        with rasterio.open(path) as source:
            found[f"demo/{path.parent.name}"] = digest(source.read(1))
    return found | parity()


def parity() -> dict[str, Any]:
    """FarmVibes.AI's workflow on two rasters: masks and probabilities."""
    folder, found = DATA / "parity", {}
    for case in sorted(path.parent for path in folder.glob("*/case.json")):
        options = json.loads((case / "case.json").read_text())
        del options["outputs"]
        clouds = [folder / "models" / name for name in options.pop("cloud_onnx")]
        result = scm.improve_cloud_mask(
            s2_raster=folder / "s2.tif",
            product_mask=folder / "product_mask.tif",
            cloud_model=clouds if len(clouds) > 1 else clouds[0],
            shadow_model=folder / "models" / options.pop("shadow_onnx"),
            **options,
        )
        for name in ("mask", "cloud_probability", "shadow_probability"):
            found[f"parity/{case.name}/{name}"] = digest(getattr(result, name))
    return found


def main() -> int:
    """Write the outputs' hashes, or compare them with a file; 1 if anything differs."""
    what, file = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        found: dict[str, Any] = outputs(Path(work))
    if what == "write":
        Path(file).write_text(json.dumps(found, indent=1, sort_keys=True))
        return 0
    before = json.loads(Path(file).read_text())
    before, found = flat(before), flat(found)
    wrong = [key for key in sorted({*before, *found}) if before.get(key) != found.get(key)]
    for key in wrong:
        sys.stdout.write(f"{key}\n  before {before.get(key)}\n  now    {found.get(key)}\n")
    sys.stdout.write(f"{len(before) - len(wrong)} of {len(before)} the same\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
