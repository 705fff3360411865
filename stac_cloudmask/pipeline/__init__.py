"""Mask items, and write, list and publish the masks."""
