"""The visitor's id: signed, renewed, and nobody's to forge."""

from __future__ import annotations

from typing import Any

import pytest

from ldinstrument.errors import DefinitionError
from ldinstrument.integrations.visitors import MAX_AGE, REFRESH_AFTER, Visitors, visitors_of


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def cookie(token: str | None) -> str:
    return f"other=1; ld_visitor={token}; last=a=b"


def test_a_visitor_is_recognised_by_the_cookie() -> None:
    """The id comes back, and nothing has to be sent again."""
    visitors = Visitors("s")
    fresh = visitors.arrived("")

    back = visitors.arrived(cookie(fresh.token))

    assert (fresh.id, None) == (back.id, back.token)


def test_nobody_can_become_somebody_else() -> None:
    """Each change of the token makes a new visitor, as does another secret."""
    visitors = Visitors("s")
    token = visitors.arrived("").token
    assert token is not None
    whose = token.partition(".")[0]
    for forged in (
        whose,
        f"{whose}.0.",
        token[:-1],
        "x" + token,
        token.replace(".", ".1", 1),
        "\u00e9." + token,
        "..",
        "",
    ):
        assert whose != visitors.arrived(cookie(forged)).id, forged
    assert whose != Visitors("other").arrived(cookie(token)).id


def test_secrets_change_without_losing_visitors() -> None:
    """The first signs, all are accepted."""
    old = Visitors("old").arrived("")
    both = Visitors(["new", "old"])

    assert old.id == both.arrived(cookie(old.token)).id
    fresh = both.arrived("")
    assert fresh.id == Visitors("new").arrived(cookie(fresh.token)).id


def test_the_cookie_is_renewed_while_visits_go_on_and_ends_when_they_do() -> None:
    """After a day it is sent again with the same id; long after its end it is worth nothing."""
    clock = Clock()
    visitors = Visitors("s", clock=clock)
    fresh = visitors.arrived("")

    clock.now += REFRESH_AFTER + 1
    renewed = visitors.arrived(cookie(fresh.token))
    assert fresh.id == renewed.id
    assert renewed.token not in (None, fresh.token)

    clock.now += MAX_AGE + REFRESH_AFTER + 1
    assert fresh.id != visitors.arrived(cookie(renewed.token)).id


def test_the_answer_is_a_modest_cookie() -> None:
    """Secure where the request was; nothing for a visitor who has one, nothing that a shared cache
    could keep.
    """
    visitors = Visitors("s", header="X-Visitor")
    fresh = visitors.arrived("")
    answer = dict(visitors.answer(fresh, True))

    assert fresh.token == answer["X-Visitor"]
    for part in (
        "ld_visitor=",
        "Path=/",
        f"Max-Age={MAX_AGE}",
        "HttpOnly",
        "SameSite=Lax",
        "Secure",
    ):
        assert part in answer["Set-Cookie"]
    assert "Secure" not in dict(visitors.answer(fresh, False))["Set-Cookie"]
    assert visitors.answer(visitors.arrived(cookie(fresh.token)), True) == []
    assert (
        []
        == visitors.answer(fresh, True, "public, max-age=60")
        == visitors.answer(fresh, True, "s-maxage=1")
    )


def test_a_client_without_cookies_may_use_a_header() -> None:
    """Then no cookie is needed at all."""
    visitors = Visitors("s", cookie=None, header="X-Visitor")
    fresh = visitors.arrived("")

    assert [("X-Visitor", fresh.token)] == visitors.answer(fresh, True)
    assert fresh.id == visitors.arrived("", fresh.token).id


@pytest.mark.parametrize("secret", [None, "", [], [""]])
def test_no_secret_is_said_where_it_is_written(
    secret: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless nobody is to be marked, or the environment has one."""
    with pytest.raises(DefinitionError, match="secret="):
        visitors_of("store", True, None, secret)
    assert visitors_of("store", False, None, secret) is None
    assert visitors_of(None, True, None, secret) is None
    monkeypatch.setenv("LDINSTRUMENT_SECRET", "from the environment")
    assert visitors_of("store", True, None, secret) is not None
