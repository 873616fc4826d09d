"""Where sessions begin and end in frameworks and platforms: one module each, imported by name.

Nothing is imported here, so a program that uses one of them does not need, or load, the others.
"""

from __future__ import annotations
