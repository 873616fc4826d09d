"""Flags and segments, and how SDKs and browsers get them."""
