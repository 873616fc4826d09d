"""A watcher that writes down what it hears."""

from __future__ import annotations

from typing import Any


class Heard:
    """A watcher that writes down what it hears."""

    delegates = False

    def __init__(self) -> None:
        self.all: list[str] = []

    def resume(self) -> None:
        self.all.append("resume")

    def pause(self) -> None:
        self.all.append("pause")

    def first(self) -> None:
        self.all.append("first")

    def unstarted(self) -> None:
        self.all.append("unstarted")

    def returned(self, result: Any) -> None:
        self.all.append(f"returned {result}")

    def raised(self, error: BaseException) -> None:
        self.all.append(f"raised {type(error).__name__}")

    @property
    def ends(self) -> list[str]:
        """What was heard beside each step."""
        return [what for what in self.all if what not in ("resume", "pause")]
