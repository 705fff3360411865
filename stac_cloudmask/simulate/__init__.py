"""Simulated scenes whose truth is known."""
