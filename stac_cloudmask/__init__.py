"""Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item."""
