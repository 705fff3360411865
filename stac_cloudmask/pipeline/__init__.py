"""From items to masks that are written, listed and published."""
