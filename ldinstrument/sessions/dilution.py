"""How much of the sessions of exposed contexts lies before their exposure: it thins effects out."""

from __future__ import annotations

from ..diagnostics import log_once
from ..ledger import ledger
from ..values import Fields

ENOUGH = 20
"""So many exposed sessions are no chance."""
THIN = 0.25
"""From this share on a third more effect is needed to show the same."""


class EndedSession(Fields):
    """What is counted of a session that has ended.

    Args:
        name: of the session.
        exposed: whether its context was exposed to an experiment by then.
        milliseconds: how long it lasted.
        before: the part up to its last activity before its first exposure; None without any.
    """

    __slots__ = ("name", "exposed", "milliseconds", "before")

    def __init__(
        self,
        name: str,
        exposed: bool,
        milliseconds: float,
        before: float | None,
    ) -> None:
        self.name = name
        self.exposed = exposed
        self.milliseconds = milliseconds
        self.before = before


def note_ended(session: EndedSession) -> None:
    """Count *session*, and say it once when much of such sessions lies before the exposure."""
    ledger.session_ended(session.name, session.exposed, session.milliseconds, session.before)
    if session.before is None:
        return
    found = ledger.sessions(session.name)
    share = found.share_before
    if found.exposed >= ENOUGH and share >= THIN:
        log_once(
            "diluted",
            session.name,
            f"{session.name}.duration: {share:.0%} of the time of exposed sessions lies before "
            f"their exposure, so an effect of 10 % shows as about {10 * (1 - share):.1f} %; "
            "evaluate the flag when the session begins, or compare the metrics of the task",
        )


def note_unseen(name: str, exposures: int) -> None:
    """Count *exposures* that were learned of after values around them had folded; say it once."""
    if not exposures:
        return
    ledger.unseen_exposures(name, exposures)
    log_once(
        "unseen_exposure",
        name,
        f"{name}: an exposure in another process lies between values that had folded already: "
        "such a sum counts as before it; evaluate the flag in the request that records, "
        "or give the metric rollup='each'",
    )
