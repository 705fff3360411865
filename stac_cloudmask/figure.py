"""A figure of matplotlib's that notebooks show by themselves; imported only where it is drawn, as it is an extra."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure without pyplot: no window is opened, and none is kept open; a notebook shows it as an image."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
