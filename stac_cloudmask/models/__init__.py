"""Models: their STAC items, their files, their sessions."""
