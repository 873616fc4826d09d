"""The visitor's id, signed, in a cookie or a header: how requests find the visit that they are part
of.

It is random and says nothing about anybody. It lives for two days after the last visit, about as
long as a store remembers; `cookie=False` sends none, and visits then go by context.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from ..diagnostics import warn_once
from ..errors import DefinitionError
from ..settings import variable

Secret = str | bytes | Sequence[str | bytes] | None
COOKIE = "ld_visitor"
MAX_AGE = 2 * 86_400
REFRESH_AFTER = 86_400
ATTRIBUTES = f"HttpOnly; Max-Age={MAX_AGE}; Path=/; SameSite=Lax"
"""Of the cookie; over TLS it is `Secure`, too."""
SECRET = "LDINSTRUMENT_SECRET"  # noqa: S105 - the variable's name


@dataclass(slots=True)
class Visitor:
    """Who makes a request.

    Args:
        id: random.
        token: the signed id that the response has to carry; None when the client has it already.
        is_new: whether this request has made the id.
    """

    id: str
    token: str | None = None
    is_new: bool = False


class Visitors:
    """Reads and writes visitors' ids.

    Args:
        secret: signs them, so that nobody can add to the visits of others. All workers need the
            same. Of several, the first signs and all are accepted, for a change of secrets. None
            reads `LDINSTRUMENT_SECRET`. Empty and blank ones count as unset.
        cookie: its name; None for no cookie.
        header: a request header that may carry the id instead, for clients without cookies; the
            response has it too.
        clock: seconds since the epoch.

    Raises:
        DefinitionError: no secret anywhere, or a cookie's name that is none.
    """

    def __init__(
        self,
        secret: Secret = None,
        *,
        cookie: str | None = COOKIE,
        header: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = [_key(text) for text in secrets_of(secret)]
        if not self._keys:
            raise DefinitionError(f"store=: a visitor's id needs a signature: {ADVICE}")
        self.cookie = cookie
        self.header = header
        self.header_name = header.lower() if header else ""
        """What ASGI calls the header."""
        self.environ_name = f"HTTP_{header.upper().replace('-', '_')}" if header else ""
        """What WSGI does."""
        self._clock = clock
        if cookie is not None:
            _check_name(cookie)

    def read(self, cookies: str = "", header: str | None = None) -> Visitor:
        """Return who has sent a `Cookie` header of *cookies*, or a *header* of our own.

        A new visitor when neither carries a valid id.
        """
        for token in self._tokens(cookies, header) if cookies or header else ():
            found = self._visitor(token)
            if found is not None:
                return found
        fresh = secrets.token_urlsafe(16)
        return Visitor(fresh, _signed(self._keys[0], fresh, f"{int(self._clock()):x}"), is_new=True)

    def response_headers(
        self, visitor: Visitor, *, secure: bool, cache_control: str = ""
    ) -> list[tuple[str, str]]:
        """Return the headers that the response has to carry.

        Args:
            visitor: as read from the request.
            secure: whether the request came over TLS.
            cache_control: the response's `Cache-Control`: what a shared cache may keep must carry
                nobody's id.
        """
        if visitor.token is None or (cache_control and may_be_shared(cache_control)):
            return []
        found = [(self.header, visitor.token)] if self.header else []
        if self.cookie:
            cookie = f"{self.cookie}={visitor.token}; {ATTRIBUTES}"
            found.append(("Set-Cookie", f"{cookie}; Secure" if secure else cookie))
        return found

    def _tokens(self, cookies: str, header: str | None) -> Iterator[str]:
        """Yield what may be a signed id.

        Not by `SimpleCookie.load`: one cookie that it cannot read hides all the others.
        """
        if header:
            yield header
        for cookie in cookies.split(";") if self.cookie else ():
            name, _, value = cookie.partition("=")
            if name.strip() == self.cookie:
                yield value.strip()

    def _visitor(self, token: str) -> Visitor | None:
        rest, _, _ = token.rpartition(".")
        visitor_id, _, issued = rest.rpartition(".")
        if not visitor_id or not self._is_signed(token, visitor_id, issued):
            return None
        now = int(self._clock())
        age = now - int(issued, 16)
        if age > MAX_AGE + REFRESH_AFTER:  # browsers drop it earlier
            return None
        renewed = _signed(self._keys[0], visitor_id, f"{now:x}") if age > REFRESH_AFTER else None
        return Visitor(visitor_id, renewed)

    def _is_signed(self, token: str, visitor_id: str, issued: str) -> bool:
        given = token.encode("utf-8", "replace")
        return any(
            hmac.compare_digest(_signed(key, visitor_id, issued).encode("utf-8", "replace"), given)
            for key in self._keys
        )


ADVICE = (
    f"give secret=, the same in all workers, or set {SECRET}; or send no cookie with cookie=False"
)


def secrets_of(given: Secret) -> list[str | bytes]:
    """Return the secrets that are *given*, else that of the environment; blank ones are none."""
    several = [given] if isinstance(given, (str, bytes)) else list(given or ())
    found: list[str | bytes] = [text for text in several if text and text.strip()]
    if not found and (from_environment := variable(SECRET)) is not None:
        found.append(from_environment)
    return found


def may_be_shared(cache_control: str) -> bool:
    """Tell whether a shared cache may keep a response with this `Cache-Control`."""
    value = cache_control.lower()
    return "public" in value or "s-maxage" in value


def visitors_for(cookie: bool | str, header: str | None, secret: Secret) -> Visitors | None:
    """Return what a boundary's `cookie=`, `header=` and `secret=` mean; None to mark nobody.

    Without a secret nobody is marked either, which is logged: a server that is configured so must
    still serve.
    """
    name = COOKIE if cookie is True else cookie or None
    if not (name or header):
        return None
    if not secrets_of(secret):
        warn_once(
            "no_visitor", SECRET, f"store=: visits go by context for want of a secret; {ADVICE}"
        )
        return None
    return Visitors(secret, cookie=name, header=header)


def _key(secret: str | bytes) -> bytes:
    # A key of our own: the secret may be Flask's or Django's, and signs other things there.
    raw = secret.encode() if isinstance(secret, str) else secret
    return hashlib.sha256(b"ldinstrument.visitor\0" + raw).digest()


def _signed(key: bytes, visitor_id: str, issued: str) -> str:
    """Return the token of *visitor_id*, which was *issued* then (a hexadecimal date)."""
    signed = f"{visitor_id}.{issued}"
    digest = hmac.digest(key, signed.encode("utf-8", "replace"), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(digest[:16]).decode().rstrip('=')}"


def _check_name(cookie: str) -> None:
    """Raise a `DefinitionError` if *cookie* is no name for one."""
    try:
        SimpleCookie()[cookie] = ""
    except CookieError as error:
        raise DefinitionError(f"cookie=: {cookie!r} is no name for a cookie") from error
