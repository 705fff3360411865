"""The report: one HTML file to look at the masks of a catalog, without any network."""
