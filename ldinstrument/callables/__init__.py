"""Callables."""
