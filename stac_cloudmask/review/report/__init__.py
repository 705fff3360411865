"""The report: one HTML file to look at the masks of a catalog, without any network."""

from __future__ import annotations

from stac_cloudmask.review.report.builder import build_report

__all__ = ["build_report"]
