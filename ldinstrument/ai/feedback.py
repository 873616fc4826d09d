"""Feedback that comes later, perhaps in another process: a signed token says whose answer it is
about.

A token carries kinds and keys of the context, the run of an AI config, an id of its own and when it
expires. It is sealed and signed with the secret (see `tokens.py`): who holds it reads nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import sdk, settings
from ..diagnostics import guard, log_internal_error, warn_once
from ..errors import (
    DefinitionError,
    ExpiredFeedbackToken,
    FeedbackTokenError,
    ForgedFeedbackToken,
    MissingExtra,
    StrictError,
    UsedFeedbackToken,
)
from ..ledger import ledger
from ..sessions import recipes
from ..sessions.clients import Tracker
from ..sessions.contexts import as_context, kinds
from ..sessions.current import current_session
from ..sessions.session import Session
from ..stores.protocol import Store
from ..values import above_zero
from .config_runs import ConfigRun, latest_run
from .tokens import Forged, read_token, token_of

if TYPE_CHECKING:
    from ldclient import Context

LIFETIME = 30 * 24 * 3600.0
LONGEST_LIFETIME = 100 * 365 * 24 * 3600.0
"""Seconds; what is longer, such as infinity, is this."""
SECRET = "LDINSTRUMENT_FEEDBACK_SECRET"  # noqa: S105 - the name of a variable
LONGEST_TOKEN = 4096

Secret = str | Sequence[str] | None
Stores = Store | str | Path | None


@dataclass(frozen=True, slots=True)
class FeedbackToken:
    """What a token says.

    Args:
        context: key by context kind.
        session_id: the session that the answer was given in; empty when there was none.
        run: the data of the AI config's run; empty when there was none.
        id: random; a token is redeemed once by it.
        expires: seconds since the epoch.
    """

    context: dict[str, str]
    session_id: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    expires: int = 0

    @property
    def ldcontext(self) -> Context | None:
        """Return the context, of one kind or several; None when it cannot be one."""
        parts = [{"kind": kind, "key": key} for kind, key in self.context.items()]
        if len(parts) == 1:
            return as_context(parts[0])
        several = {part["kind"]: {"key": part["key"]} for part in parts}
        return as_context({"kind": "multi", **several})


# -- making one ------------------------------------------------------------------------------------


def feedback_token(
    *,
    session: Session | None = None,
    context: Any = None,
    run: ConfigRun | None = None,
    expires: float = LIFETIME,
    secret: Secret = None,
) -> str | None:
    """Return a sealed, URL-safe token with which feedback on this answer can come later.

    Put it beside the answer, in a link or a hidden field, and give it back to
    `track_feedback(positive, token=...)`, in this process or another one.

    Args:
        session: whose answer it is; the current session when None.
        context: instead of a session: a context or a key.
        run: of an AI config; the latest run in the session when None.
        expires: seconds from now.
        secret: seals and signs it; several, newest first, while one is exchanged. None reads
            `LDINSTRUMENT_FEEDBACK_SECRET`, else `LAUNCHDARKLY_SDK_KEY`, else the client's SDK key.

    Returns:
        The token; None, said once, when it is not known whose answer it is, when there is no
        secret, when an argument is none of these, or when the extra `ai` is not installed.
    """
    try:
        return _token(session, context, run, expires, secret)
    except (MissingExtra, DefinitionError) as error:
        warn_once("feedback_token", str(error), f"feedback_token: {error}")
        return None


def _token(
    session: Session | None, context: Any, run: ConfigRun | None, expires: float, secret: Secret
) -> str | None:
    """Do what `feedback_token` does; raise DefinitionError for an argument of another type."""
    _of_type("session=", session, Session)
    _of_type("run=", run, ConfigRun)
    above_zero("expires=", expires)
    session = session or current_session()
    whose = as_context(context)
    if whose is None and session is not None and context is None:
        whose = session.context
    if whose is None:
        warn_once(
            "feedback_without_context",
            "",
            "feedback_token: it is not known whose answer it is; open a session with a context or "
            "give context=",
        )
        return None
    keys = {kind: part.key for kind, part in kinds(whose).items()}
    payload = _payload(keys, session, run or latest_run(session), expires)
    return token_of(payload, _secrets(secret, session and session.client))


def _of_type(what: str, given: object, wanted: type) -> None:
    if given is not None and not isinstance(given, wanted):
        raise DefinitionError(f"{what} is a {wanted.__name__}, not {type(given).__name__}")


def _payload(
    keys: Mapping[str, str], session: Session | None, run: ConfigRun | None, expires: float
) -> dict[str, Any]:
    seconds = max(1.0, min(expires, LONGEST_LIFETIME))
    payload: dict[str, Any] = {"c": keys, "x": int(time.time() + seconds)}
    if session is not None:
        payload["s"] = session.id
    if run is not None:
        payload["r"] = run.data
    return payload


# -- reading one -----------------------------------------------------------------------------------


def read_feedback_token(
    token: str, *, secret: Secret = None, client: Tracker | None = None
) -> FeedbackToken:
    """Return what *token* says, without using it up.

    Args:
        token: as `feedback_token` made it.
        secret: as there.
        client: whose SDK key is the secret where none is given.

    Raises:
        MissingExtra: itsdangerous or cryptography is not installed.
        DefinitionError: there is no secret.
        ForgedFeedbackToken: it was not signed with this secret, or changed since.
        ExpiredFeedbackToken: its time is over.
    """
    known = _secrets(secret, client)
    if not isinstance(token, str) or not 0 < len(token) <= LONGEST_TOKEN:
        raise ForgedFeedbackToken(_FORGED)
    try:
        read = _read(*read_token(token, known))
    except Forged:
        raise ForgedFeedbackToken(_FORGED) from None
    if read.expires <= time.time():
        raise ExpiredFeedbackToken(
            "the feedback token has expired: give a longer expires= to feedback_token()"
        )
    return read


_FORGED = (
    "the feedback token is not one of ours: it was changed on the way, or signed with another "
    "secret"
)


def _read(id: str, payload: Any) -> FeedbackToken:
    try:
        keys, run = dict(payload["c"]), dict(payload.get("r") or {})
        return FeedbackToken(keys, str(payload.get("s", "")), run, id, int(payload["x"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ForgedFeedbackToken(_FORGED) from None


def redeem_feedback_token(
    token: str,
    *,
    secret: Secret = None,
    store: Stores = None,
    client: Tracker | None = None,
) -> FeedbackToken:
    """Return what *token* says, and use it up: it can be redeemed once.

    Args:
        token: as `feedback_token` made it.
        secret: as there.
        store: where it is noted, a store or its address; None: in this process only.
        client: as of `read_feedback_token`.

    Raises:
        ForgedFeedbackToken: it was not signed with this secret, or changed since.
        ExpiredFeedbackToken: its time is over.
        UsedFeedbackToken: it was redeemed before.
    """
    read = read_feedback_token(token, secret=secret, client=client)
    if not _store(store).once(f"feedback:{read.id}", read.expires - time.time() + 60):
        raise UsedFeedbackToken("the feedback token was used before: feedback counts once")
    return read


_stores: dict[str, Any] = {}
_stores_lock = threading.Lock()


def _store(given: Stores) -> Any:
    if given is not None and not isinstance(given, (str, Path)):
        if not callable(getattr(given, "once", None)):
            raise DefinitionError(f"store= is a store or its address, not {type(given).__name__}")
        return given
    from ..stores.urls import open_store

    address = "memory:" if given is None else str(given)
    with _stores_lock:
        if address not in _stores:
            _stores[address] = open_store(address, sweep=False)
        return _stores[address]


def _secrets(given: Secret, client: Any) -> list[str]:
    """Return the secrets, newest first."""
    if given is None:
        found = settings.variable(SECRET)
        given = found.split() if found else _sdk_key(client)
    one = isinstance(given, str) or not isinstance(given, Sequence)
    known: list[Any] = [given] if one else list(given or ())
    if not known or not all(isinstance(part, str) and part for part in known):
        raise DefinitionError(
            f"no secret to sign feedback tokens with: set {SECRET}, or LAUNCHDARKLY_SDK_KEY, the "
            "same in every process"
        )
    return known


def _sdk_key(client: Any) -> str | None:
    return (
        settings.variable("LAUNCHDARKLY_SDK_KEY")
        or sdk.sdk_key_of(client)
        or sdk.sdk_key_of(sdk.singleton_client())
    )


# -- feedback --------------------------------------------------------------------------------------


def track_feedback(
    positive: bool,
    *,
    token: str | None = None,
    store: Stores = None,
    secret: Secret = None,
    comment: str | None = None,
    send_comment: bool = False,
    context: Any = None,
    client: Tracker | None = None,
    **data: Any,
) -> bool:
    """Record a thumb: satisfaction 100 or 0, and `user.negative_feedback` for a thumb down.

    Args:
        positive: whether the thumb is up.
        token: of `feedback_token`: records for the context and the AI run of that answer, once.
        store: where used tokens are noted, a store or its address, the same for every process that
            redeems; None: in this process.
        secret: as of `feedback_token`.
        comment: what the user wrote; it stays here unless *send_comment* says that it may leave.
        send_comment: put *comment* into the data of the events.
        context, client: as of the other `track_*`.
        data: goes with the events.

    Returns:
        Whether it was recorded; False for a token that is forged, expired or used, which is logged
        once and counted.
    """
    data = {**data, "comment": comment, "send_comment": send_comment}
    if token is None:
        recipes.track_feedback(positive, context=context, client=client, **data)
        _feedback_on_latest_run(bool(positive), context, client)
        return True
    try:
        _redeem_and_track(bool(positive), token, store, secret, client, data)
    except StrictError:
        raise
    except FeedbackTokenError as error:
        return _refused(type(error).__name__, str(error))
    except (MissingExtra, DefinitionError) as error:
        return _refused("feedback_setup", str(error))
    except Exception as error:
        log_internal_error("feedback", error)
        return _refused("feedback_store", "the feedback token could not be noted as used")
    return True


def _feedback_on_latest_run(positive: bool, context: Any, client: Tracker | None) -> None:
    """Send it for the AI config's run of the current session, too."""
    session = current_session()
    run = latest_run(session) if context is None and not settings.disabled() else None
    if run is not None and session is not None:
        with guard("feedback"):
            run.feedback(positive, session.context, client or session.client)


def _redeem_and_track(
    positive: bool,
    token: str,
    store: Stores,
    secret: Secret,
    client: Tracker | None,
    data: dict[str, Any],
) -> None:
    if settings.disabled():
        return
    read = redeem_feedback_token(token, secret=secret, store=store, client=client)
    whose = read.ldcontext
    named = {"sessionId": read.session_id, "configKey": read.run.get("configKey")}
    named = {name: value for name, value in named.items() if value}
    recipes.track_feedback(positive, context=whose, client=client, **{**named, **data})
    if read.run:
        ConfigRun(read.run).feedback(positive, whose, client)


def _refused(reason: str, why: str) -> bool:
    ledger.count(recorded=1)
    ledger.discarded(reason)
    warn_once("feedback_token", reason, f"track_feedback: {why}")
    return False
