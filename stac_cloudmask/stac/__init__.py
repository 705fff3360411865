"""STAC: finding, reading and writing items and their pixels."""
