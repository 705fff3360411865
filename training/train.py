"""Train the student on the teacher's answers; it goes on from its checkpoint, and the same steps give the same net.

::

    python -m training.train training-data training-run
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.model import CLASSES, DEVIATION, Student

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Layers = NDArray[np.int16]

SEED: Final = 0
SIDE: Final = 256
BATCH: Final = 8
STEPS: Final = 14_000
SAMPLE: Final = 64
"""One in this many pixels is compared by class, which takes longer than to learn from it."""
RATE: Final = 3e-3
WARM_UP: Final = 200
DECAY: Final = 0.5
"""Share of the steps at the end in which the rate falls to zero."""
SCALE: Final = 10_000
SHARES: Final = {
    "alberta-2020": 0.14,
    "alberta-2020-snow": 0.12,
    "bolzano-2022": 0.05,
    "cloudn-chips": 0.09,
    "cloudn-l2a": 0.06,
    "earth-search-33twl": 0.11,
    "sahara-29rkh": 0.07,
    "hard-cases": 0.22,
    "sen12mscr-l1c": 0.09,
    "simulated": 0.05,
}
"""How often a window comes from a collection."""
INTERESTING: Final = 0.4
"""Share of windows that are the one of three with most shadow and doubt."""

ORIGINALS: Final = 5.0
"""How much more often than from an altered copy a window comes from the scene itself, once there were `EARLY` steps."""
EARLY: Final = 1500


@dataclass(frozen=True)
class Batch:
    """Windows as the student takes them: pixels in 2 x 2 squares, as its logits come.

    Attributes:
        pixels: ``(n, band, y, x)`` roots of scaled reflectance.
        target: ``(n, class, pixel)`` probabilities.
        valid: ``(n, pixel)``, 1 where there is data.
    """

    pixels: torch.Tensor
    target: torch.Tensor
    valid: torch.Tensor


@dataclass(frozen=True)
class Pool:
    """All scenes by collection, and which of them are not altered."""

    scenes: dict[str, list[Layers]]
    original: dict[str, NDArray[np.bool_]]

    @classmethod
    def open(cls, folder: Path, without: Sequence[str]) -> Pool:
        """Map the files of a folder into memory, but for scenes with certain words in their names."""
        paths = [path for path in sorted(folder.glob("*.npy")) if not any(word in path.name for word in without)]
        by_kind = {kind: [path for path in paths if path.name.startswith(f"{kind}--")] for kind in SHARES}
        scenes = {kind: [np.load(path, mmap_mode="r") for path in given] for kind, given in by_kind.items()}
        original = {kind: np.array(["-" not in path.stem.split("--")[1] for path in given])
                    for kind, given in by_kind.items()}  # fmt: skip
        return cls(scenes, original)

    def batch(self, step: int) -> Batch:
        """The windows of a step."""
        rng = np.random.default_rng([SEED, step])
        layers = np.stack([self._window(rng, ORIGINALS if step >= EARLY else 1.0) for _ in range(BATCH)])
        pixels = np.sqrt(np.maximum(layers[:, :4].astype(np.float32) / SCALE, 0) / np.float32(DEVIATION)[:, None, None])
        wanted = layers[:, 4:6].astype(np.float32) / SCALE
        target = np.concatenate([np.maximum(1 - wanted.sum(1, keepdims=True), 0), wanted], 1)
        return Batch(
            torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last),
            functional.pixel_unshuffle(torch.from_numpy(target), 2).reshape(BATCH, CLASSES, -1),
            functional.pixel_unshuffle(torch.from_numpy(layers[:, 6:].astype(np.float32)), 2).reshape(BATCH, -1),
        )

    def _window(self, rng: np.random.Generator, originals: float) -> Layers:
        shares = {kind: share for kind, share in SHARES.items() if self.scenes[kind]}
        kind = rng.choice(list(shares), p=np.array([*shares.values()]) / sum(shares.values()))
        weights = np.array([scene[0].size for scene in self.scenes[kind]]) ** 0.3
        weights *= np.where(self.original[kind], originals, 1.0)
        cuts = 3 if rng.random() < INTERESTING else 1
        window = max((_cut(self.scenes[kind], weights, rng) for _ in range(cuts)), key=_interest)
        if rng.random() < 0.5:
            window = window[:, ::-1]
        return np.rot90(window, rng.integers(4), (1, 2))


def _cut(scenes: list[Layers], weights: NDArray[np.float64], rng: np.random.Generator) -> Layers:
    scene = scenes[rng.choice(len(scenes), p=weights / weights.sum())]
    row, column = (rng.integers(0, max(side - SIDE, 0) + 1) for side in scene.shape[1:])
    window = scene[:, row : row + SIDE, column : column + SIDE]
    missing = [(0, SIDE - side) for side in window.shape[1:]]
    return np.pad(window, [(0, 0), *missing])


def _interest(window: Layers) -> float:
    """How much shadow and how much doubt about cloud a window holds."""
    cloud, shadow, valid = window[4:, ::4, ::4].astype(np.float32) / SCALE
    return float(((shadow + 4 * cloud * (1 - cloud)) * valid).mean())


def learn(net: Student, batch: Batch) -> tuple[torch.Tensor, float]:
    """The mean cross entropy with the wanted probabilities, and the share of some pixels of the same class."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.squares(batch.pixels)
    logs = functional.log_softmax(logits.float().reshape(batch.target.shape), 1)
    count = batch.valid.sum().clamp(1)
    loss = (-(batch.target * logs).sum(1) * batch.valid).sum() / count
    some, wanted, valid = (layer[..., ::SAMPLE] for layer in (logs, batch.target, batch.valid))
    same = ((some.argmax(1) == wanted.argmax(1)) * valid).sum() / valid.sum().clamp(1)
    return loss, float(same)


def rate(step: int, steps: int) -> float:
    """Learning rate: a short rise, level, a linear fall."""
    return RATE * min(1, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))


def train(data: Path, run: Path, steps: int, without: Sequence[str]) -> None:
    """Train up to a number of steps, with a checkpoint every 250."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # small convolutions: a second thread mostly waits
    run.mkdir(parents=True, exist_ok=True)
    pool, net = Pool.open(data, without), Student().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-3, fused=True)
    first, spent = 0, 0.0
    if (run / "checkpoint.pt").exists():
        state = torch.load(run / "checkpoint.pt")
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["seconds"]
    sums, started = np.zeros(2), time.process_time() - spent
    with (run / "log.txt").open("a") as log, ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(pool.batch, first)
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps)
            batch, ahead = ahead.result(), reader.submit(pool.batch, step + 1)
            loss, same = learn(net, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            sums += loss.item(), same
            if (step + 1) % 50 == 0:
                used = time.process_time() - started
                figures = f"loss {sums[0] / 50:.4f} same class {sums[1] / 50:.4f} rate {rate(step, steps):.5f}"
                print(f"{step + 1} {figures} CPU {used:.0f} s", file=log, flush=True)
                sums[:] = 0
            if (step + 1) % 250 == 0 or step + 1 == steps:
                save(run, net, optimizer, step + 1, time.process_time() - started)


def save(run: Path, net: Student, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
    """Write a checkpoint; a reader never sees half of one."""
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    torch.save(state, run / "new.pt")
    (run / "new.pt").replace(run / "checkpoint.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--without", nargs="*", default=(), help="words in the names of scenes to leave out")
    given = parser.parse_args()
    train(given.data, given.run, given.steps, given.without)
