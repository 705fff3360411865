"""The class table: the one place that knows codes, names and colours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class CloudClass(IntEnum):
    """Codes of a class map, uint8."""

    CLEAR = 0
    CLOUD = 1
    CLOUD_SHADOW = 2
    NODATA = 255


@dataclass(frozen=True, kw_only=True)
class ClassInfo:
    """What a reader or a map needs to know of one class.

    ``rgba`` is for maps; ``overlay`` is for pictures of the scene itself, where white on a cloud would not be seen:
    red, green, blue that no landscape has and that color-blind people can tell apart; None for what is not painted.
    """

    code: CloudClass
    name: str
    title: str
    description: str
    rgba: tuple[int, int, int, int]
    overlay: tuple[int, int, int] | None = None

    @property
    def color_hint(self) -> str:
        """Six hex digits, as the classification extension wants them."""
        return "".join(f"{channel:02X}" for channel in self.rgba[:3])


CLASSES: Final = (
    ClassInfo(
        code=CloudClass.CLEAR,
        name="clear",
        title="Clear",
        description="The surface is seen: neither cloud nor cloud shadow.",
        rgba=(60, 120, 60, 0),
    ),
    ClassInfo(
        code=CloudClass.CLOUD,
        name="cloud",
        title="Cloud",
        description="Cloud of any thickness that hides or alters the surface.",
        rgba=(255, 255, 255, 255),
        overlay=(230, 40, 130),
    ),
    ClassInfo(
        code=CloudClass.CLOUD_SHADOW,
        name="cloud_shadow",
        title="Cloud shadow",
        description="The surface is seen, but a cloud keeps the sun from it.",
        rgba=(90, 60, 130, 255),
        overlay=(80, 140, 255),
    ),
    ClassInfo(
        code=CloudClass.NODATA,
        name="nodata",
        title="No data",
        description="The scene has no pixel here: neither clear nor cloud.",
        rgba=(0, 0, 0, 0),
    ),
)
