"""The student: a small U-Net of 3 x 3 convolutions without any mean over its window."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS: Final = (16, 32, 64, 128, 192)
"""Channels at a half, a quarter ... a thirty-second of the resolution; multiples of 16 suit the CPU's registers."""
EXTRA: Final = (0, 1, 3, 3, 2)
"""Convolutions after the one that halves the resolution."""
CLASSES: Final = 3
MEAN: Final = (0.26681777834892273, 0.27799084782600403, 0.28811994194984436, 0.36494743824005127)
DEVIATION: Final = (0.33637598156929016, 0.3125455975532532, 0.311148464679718, 0.27260705828666687)
"""The teacher's scaling of reflectance, which is the student's too."""


def convolution(given: int, made: int, stride: int = 1) -> nn.Sequential:
    """A convolution, batch normalization and ReLU."""
    return nn.Sequential(nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU(inplace=True))


class Student(nn.Module):
    """Scaled reflectance ``(n, 4, y, x)`` to logits ``(n, 3, y, x)``; sides are multiples of 32.

    It looks at the square root of reflectance, in which a shadow differs from dark ground as much as cloud from
    thicker cloud. The convolutions run at half the resolution or less; the four pixels of each 2 x 2 square come from
    the channels of one.
    """

    def __init__(self) -> None:
        super().__init__()
        black = torch.tensor(MEAN) / torch.tensor(DEVIATION)
        self.register_buffer("black", black[:, None, None])
        pairs = zip((4, *WIDTHS[:-1]), WIDTHS, EXTRA, strict=True)
        self.down = nn.ModuleList(
            nn.Sequential(convolution(given, made, 2), *(convolution(made, made) for _ in range(extra)))
            for given, made, extra in pairs
        )
        self.lateral = nn.ModuleList(nn.Conv2d(deep, fine, 1) for fine, deep in pairwise(WIDTHS))
        self.up = nn.ModuleList(convolution(width, width) for width in WIDTHS[:-1])
        self.head = nn.Conv2d(WIDTHS[0], 4 * CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of clear, cloud and cloud shadow."""
        return functional.pixel_shuffle(self.squares((x + self.black).relu().sqrt()), 2)

    def squares(self, x: Tensor) -> Tensor:
        """Logits of each 2 x 2 square, ``(n, 4 * class, y, x)``, from roots of reflectance."""
        features = []
        for stage in self.down:
            x = stage(x)
            features.append(x)
        for lateral, up, fine in zip(reversed(self.lateral), reversed(self.up), features[-2::-1], strict=True):
            x = up(functional.interpolate(lateral(x), scale_factor=2.0, mode="nearest") + fine)
        return self.head(x)
