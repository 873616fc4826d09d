"""The visitor's id, signed, in a cookie or a header: how requests find the session that they are
part of.

It is random and says nothing about anybody. It lives for two days after the last visit, about as
long as a store remembers; `cookie=False` sends none, and sessions then go by context.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import DefinitionError

Secret = str | bytes | Sequence[str | bytes] | None
COOKIE = "ld_visitor"
MAX_AGE = 2 * 86_400
REFRESH_AFTER = 86_400
SECRET = "LDINSTRUMENT_SECRET"  # noqa: S105 - the variable's name


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who makes a request: a random id, what the response has to bring back, if anything, and
    whether he is new.
    """

    id: str
    token: str | None = None
    is_new: bool = False


class Visitors:
    """Reads and writes visitors' ids.

    Args:
        secret: signs them, so that nobody can add to the sessions of others. All workers need the
            same. Of several, the first signs and all are accepted, for a change of secrets. None
            reads `LDINSTRUMENT_SECRET`.
        cookie: its name; None for no cookie.
        header: a request header that may carry the id instead, for clients without cookies; the
            response has it too.
        clock: seconds since the epoch.

    Raises:
        DefinitionError: no secret anywhere.
    """

    def __init__(
        self,
        secret: Secret = None,
        *,
        cookie: str | None = COOKIE,
        header: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        given = [secret] if isinstance(secret, (str, bytes)) else list(secret or ())
        self._keys = [_key(one) for one in given if one]
        if not self._keys and SECRET in os.environ:
            self._keys = [_key(os.environ[SECRET])]
        if not self._keys:
            raise DefinitionError(
                "store=: a visitor's id needs a signature: give secret=, the same in all workers, "
                "or set "
                f"{SECRET}; or send no cookie with cookie=False"
            )
        self.cookie = cookie
        self.header = header
        self._clock = clock

    def arrived(self, cookies: str = "", header: str | None = None) -> Visitor:
        """Who has sent a `Cookie` header of *cookies*, or a header of our own; a new visitor when
        neither is valid.
        """
        tokens = [header] if header else []
        if self.cookie:
            tokens += [
                value for name, _, value in map(_pair, cookies.split(";")) if name == self.cookie
            ]
        for token in tokens:
            found = self._read(token)
            if found is not None:
                return found
        fresh = secrets.token_urlsafe(16)
        return Visitor(fresh, self._written(fresh), is_new=True)

    def answer(self, visitor: Visitor, secure: bool, cacheable: str = "") -> list[tuple[str, str]]:
        """The headers that the response has to carry.

        Args:
            visitor: as it arrived.
            secure: whether the request came over TLS.
            cacheable: the response's `Cache-Control`: what a shared cache may keep must carry
                nobody's id.
        """
        if visitor.token is None or may_be_shared(cacheable):
            return []
        found = [(self.header, visitor.token)] if self.header else []
        if self.cookie:
            rest = (
                f"Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
            )
            found.append(("Set-Cookie", f"{self.cookie}={visitor.token}; {rest}"))
        return found

    def _read(self, token: str) -> Visitor | None:
        signed, _, signature = token.rpartition(".")
        whose, _, issued = signed.rpartition(".")
        if not whose or not self._signed(signed, signature.encode("utf-8", "replace")):
            return None
        age = self._clock() - int(issued, 16)
        if age > MAX_AGE + REFRESH_AFTER:  # browsers drop it earlier
            return None
        return Visitor(whose, self._written(whose) if age > REFRESH_AFTER else None)

    def _signed(self, signed: str, signature: bytes) -> bool:
        return any(
            hmac.compare_digest(_signature(key, signed).encode(), signature) for key in self._keys
        )

    def _written(self, whose: str) -> str:
        signed = f"{whose}.{int(self._clock()):x}"
        return f"{signed}.{_signature(self._keys[0], signed)}"


def may_be_shared(cache_control: str) -> bool:
    """Whether a shared cache may keep a response with this `Cache-Control`: it must carry nobody's
    id.
    """
    told = cache_control.lower()
    return "public" in told or "s-maxage" in told


def visitors_of(
    store: object, cookie: bool | str, header: str | None, secret: Secret
) -> Visitors | None:
    """What a middleware's `cookie=`, `header=` and `secret=` mean; None without a store, or to mark
    nobody.
    """
    name = COOKIE if cookie is True else cookie or None
    if store is None or not (name or header):
        return None
    return Visitors(secret, cookie=name, header=header)


def _key(secret: str | bytes) -> bytes:
    # A key of our own: the secret may be Flask's or Django's, and signs other things there.
    raw = secret.encode() if isinstance(secret, str) else secret
    return hashlib.sha256(b"ldinstrument.visitor\0" + raw).digest()


def _signature(key: bytes, signed: str) -> str:
    digest = hmac.new(key, signed.encode("utf-8", "replace"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")


def _pair(cookie: str) -> tuple[str, str, str]:
    name, equals, value = cookie.partition("=")
    return name.strip(), equals, value.strip()
