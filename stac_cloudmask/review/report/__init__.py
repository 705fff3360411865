"""The report: one self-contained HTML file that shows the masks of a catalog."""

from __future__ import annotations

from stac_cloudmask.review.report.builder import build_report

__all__ = ["build_report"]
