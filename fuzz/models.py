"""Models spoilt at random: their files and their items, asked for probabilities of one window."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from fuzz import canaries, tiny
from fuzz.spoil import spoil, spoilt_bytes
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.models import session
from stac_cloudmask.models.spec import read_model_item

Bytes = Callable[[random.Random], bytes]


def _noise(chance: random.Random) -> bytes:
    return spoilt_bytes(tiny.graph().SerializeToString(), chance, header=10**9)


def _good(_: random.Random) -> bytes:
    return bytes(tiny.graph().SerializeToString())


def _external(chance: random.Random) -> bytes:
    model = tiny.graph()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = chance.choice(["/etc/passwd", "../secret.bin", "tiny.json"])
    tensor.external_data.extend([onnx.StringStringEntryProto(key="location", value=place)])
    return bytes(model.SerializeToString())


def _custom(chance: random.Random) -> bytes:
    name = chance.choice(["ai.evil", "com.example", "org.pytorch.aten"])
    node = helper.make_node("Run", ["chips"], ["logits"], domain=name)
    model = tiny.graph([node])
    model.opset_import.extend([helper.make_opsetid(name, 1)])
    return bytes(model.SerializeToString())


def _shapes(chance: random.Random) -> bytes:
    return bytes(tiny.graph(channels=chance.choice([1, 2, 4, 50]), bands=chance.choice([1, 2, 13])).SerializeToString())


def _not_finite(chance: random.Random) -> bytes:
    bad = chance.choice([np.nan, np.inf, -np.inf, 3e38])
    return bytes(tiny.graph(weights=np.full((3, 2, 1, 1), bad)).SerializeToString())


def _stranger(chance: random.Random) -> bytes:
    texts = (
        b"",
        b"<html>",
        b"PK\3\4zip",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x80\x04pickle",
        b"\x08\x08",
    )
    return chance.choice([*texts, chance.randbytes(chance.randrange(400))])


FILES: Final[tuple[Bytes, ...]] = (
    *([_noise] * 6),
    _good,
    _external,
    _custom,
    _shapes,
    _not_finite,
    _stranger,
)


@dataclass(frozen=True)
class Bench:
    """A folder in which models are made, spoilt and run."""

    root: Path

    def case(self, seed: int) -> str:
        """Try one model; what came of it, in a word.

        Raises:
            Exception: A promise was broken.
        """
        chance = random.Random(seed)
        folder = self.root / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        body = tiny.model_body()
        if chance.random() < 0.5:
            file = chance.choice(FILES)(chance)
        else:
            file = _good(chance)
            spoil(body, chance)
            canaries.plant(body, chance)
        (folder / "tiny.onnx").write_bytes(file)
        (folder / "tiny.json").write_text(json.dumps(body))
        session._sessions.clear()
        try:
            return _asked(folder / "tiny.json", chance)
        except StacCloudmaskError as error:
            canaries.check_error(error)
            return type(error).__name__


def _asked(path: Path, chance: random.Random) -> str:
    spec = read_model_item(path)
    bands = len(spec.bands)
    pixels = np.random.default_rng(chance.randrange(100)).random((1, bands, 64, 64), np.float32)
    found = session.OnnxSegmenter(spec, threads=1).predict(pixels)
    for role, probability in found.items():
        if probability.shape != (1, 64, 64) or not ((probability >= 0) & (probability <= 1.0001)).all():
            raise AssertionError(f"{role} is no probability of the window")
    return "processed"
