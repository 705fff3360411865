"""Train the student on the teacher's answers; it goes on from its checkpoint, and the same steps give the same net.

::

    python -m training.train training-data training-run --steps 11000
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.model import DEVIATION, MEAN, Student

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Layers = NDArray[np.int16]

SEED: Final = 0
SIDE: Final = 192
BATCH: Final = 8
RATE: Final = 3e-3
WARM_UP: Final = 200
DECAY: Final = 0.35
"""Share of the steps at the end in which the rate falls to zero."""
SCALE: Final = 10_000
SHARES: Final = {
    "alberta-2020": 0.16,
    "alberta-2020-snow": 0.11,
    "bolzano-2022": 0.05,
    "cloudn-chips": 0.10,
    "cloudn-l2a": 0.07,
    "earth-search-33twl": 0.10,
    "sahara-29rkh": 0.07,
    "hard-cases": 0.18,
    "sen12mscr-l1c": 0.11,
    "simulated": 0.05,
}
"""How often a window comes from a collection."""
INTERESTING: Final = 0.4
"""Share of windows that are the one of three with most shadow and doubt."""


ORIGINALS: Final = 5.0
"""How much more often than from an altered copy a window comes from the scene itself, once there were `EARLY` steps."""
EARLY: Final = 1500


@dataclass(frozen=True)
class Pool:
    """All scenes by collection, and which of them are not altered."""

    scenes: dict[str, list[Layers]]
    original: dict[str, NDArray[np.bool_]]

    @classmethod
    def open(cls, folder: Path) -> Pool:
        """Map the files of a folder into memory."""
        scenes: dict[str, list[Layers]] = {kind: [] for kind in SHARES}
        for path in sorted(folder.glob("*.npy")):
            scenes[path.name.split("--")[0]].append(np.load(path, mmap_mode="r"))
        names = {kind: [path.stem.split("--")[1] for path in sorted(folder.glob(f"{kind}--*.npy"))] for kind in SHARES}
        return cls(scenes, {kind: np.array(["-" not in name for name in given]) for kind, given in names.items()})

    def batch(self, step: int) -> Layers:
        """The windows of a step ``(n, layer, y, x)``."""
        rng = np.random.default_rng([SEED, step])
        return np.stack([self._window(rng, ORIGINALS if step >= EARLY else 1.0) for _ in range(BATCH)])

    def _window(self, rng: np.random.Generator, originals: float) -> Layers:
        kind = rng.choice(list(SHARES), p=np.array([*SHARES.values()]) / sum(SHARES.values()))
        weights = np.array([scene[0].size for scene in self.scenes[kind]]) ** 0.5
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


def learn(net: Student, layers: Layers) -> tuple[torch.Tensor, float]:
    """The mean cross entropy with the teacher's probabilities, and the share of pixels of the same class."""
    given = layers.astype(np.float32) / SCALE
    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (MEAN, DEVIATION))
    pixels = (given[:, :4] - mean) / deviation
    x = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
    answer = torch.from_numpy(given[:, 4:6])
    valid = torch.from_numpy(layers[:, 6].astype(np.float32))
    target = torch.cat([(1 - answer.sum(1, keepdim=True)).clamp(0), answer], 1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(x)
    logs = functional.log_softmax(logits.float(), 1)
    loss = (-(target * logs).sum(1) * valid).sum() / valid.sum().clamp(1)
    same = ((logs.argmax(1) == target.argmax(1)) * valid).sum() / valid.sum().clamp(1)
    return loss, float(same)


def rate(step: int, steps: int) -> float:
    """Learning rate: a short rise, level, a linear fall."""
    return RATE * min(1, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))


def train(data: Path, run: Path, steps: int) -> None:
    """Train up to a number of steps, with a checkpoint every 250."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # small convolutions: a second thread mostly waits
    run.mkdir(parents=True, exist_ok=True)
    pool, net = Pool.open(data), Student().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-3)
    first, spent = 0, 0.0
    if (run / "checkpoint.pt").exists():
        state = torch.load(run / "checkpoint.pt")
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["seconds"]
    sums, started = np.zeros(2), time.process_time() - spent
    with (run / "log.txt").open("a") as log:
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps)
            loss, same = learn(net, pool.batch(step))
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
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1,
                         "seconds": time.process_time() - started}  # fmt: skip
                torch.save(state, run / "new.pt")
                (run / "new.pt").replace(run / "checkpoint.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=11_000)
    given = parser.parse_args()
    train(given.data, given.run, given.steps)
