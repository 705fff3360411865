"""Inspect masks: scores, explanations, pictures, reports."""
