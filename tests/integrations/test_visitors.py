"""The visitor's id: signed, renewed, and nobody's to forge."""

from __future__ import annotations

from typing import Any

import pytest

from ldinstrument.errors import DefinitionError
from ldinstrument.integrations.visitors import MAX_AGE, REFRESH_AFTER, Visitors, visitors_for


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
    fresh = visitors.read("")

    back = visitors.read(cookie(fresh.token))

    assert (fresh.id, None) == (back.id, back.token)


def test_nobody_can_become_somebody_else() -> None:
    """Each change of the token makes a new visitor, as does another secret."""
    visitors = Visitors("s")
    token = visitors.read("").token
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
        assert whose != visitors.read(cookie(forged)).id, forged
    assert whose != Visitors("other").read(cookie(token)).id


def test_secrets_change_without_losing_visitors() -> None:
    """The first signs, all are accepted."""
    old = Visitors("old").read("")
    both = Visitors(["new", "old"])

    assert old.id == both.read(cookie(old.token)).id
    fresh = both.read("")
    assert fresh.id == Visitors("new").read(cookie(fresh.token)).id


def test_the_cookie_is_renewed_while_visits_go_on_and_ends_when_they_do() -> None:
    """After a day it is sent again with the same id; long after its end it is worth nothing."""
    clock = Clock()
    visitors = Visitors("s", clock=clock)
    fresh = visitors.read("")

    clock.now += REFRESH_AFTER + 1
    renewed = visitors.read(cookie(fresh.token))
    assert fresh.id == renewed.id
    assert renewed.token not in (None, fresh.token)

    clock.now += MAX_AGE + REFRESH_AFTER + 1
    assert fresh.id != visitors.read(cookie(renewed.token)).id


def test_the_answer_is_a_modest_cookie() -> None:
    """Secure where the request was; nothing for a visitor who has one, nothing that a shared cache
    could keep.
    """
    visitors = Visitors("s", header="X-Visitor")
    fresh = visitors.read("")
    answer = dict(visitors.response_headers(fresh, secure=True))

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
    assert "Secure" not in dict(visitors.response_headers(fresh, secure=False))["Set-Cookie"]
    assert visitors.response_headers(visitors.read(cookie(fresh.token)), secure=True) == []
    assert (
        []
        == visitors.response_headers(fresh, secure=True, cache_control="public, max-age=60")
        == visitors.response_headers(fresh, secure=True, cache_control="s-maxage=1")
    )


def test_a_client_without_cookies_may_use_a_header() -> None:
    """Then no cookie is needed at all."""
    visitors = Visitors("s", cookie=None, header="X-Visitor")
    fresh = visitors.read("")

    assert [("X-Visitor", fresh.token)] == visitors.response_headers(fresh, secure=True)
    assert fresh.id == visitors.read("", fresh.token).id


BLANK = [None, "", b"", " ", [], [""], ["", b" "]]


@pytest.mark.parametrize("secret", BLANK)
@pytest.mark.parametrize("environment", [None, "", "  "])
def test_without_a_secret_nobody_is_marked_and_it_is_said(
    secret: Any,
    environment: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A blank one is none, in the environment too: anybody could sign with it."""
    if environment is not None:
        monkeypatch.setenv("LDINSTRUMENT_SECRET", environment)

    assert visitors_for(True, None, secret) is None

    assert "LDINSTRUMENT_SECRET" in caplog.text
    with pytest.raises(DefinitionError, match="secret="):
        Visitors(secret)


@pytest.mark.parametrize("secret", BLANK)
def test_the_environment_may_have_the_secret(
    secret: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where none is given; nothing is said when nobody is to be marked."""
    assert visitors_for(False, None, secret) is None
    monkeypatch.setenv("LDINSTRUMENT_SECRET", "from the environment")
    found = visitors_for(True, None, secret)

    assert found is not None
    token = Visitors("from the environment").read("").token
    assert not found.read(cookie(token)).is_new
    assert caplog.text == ""


def test_a_name_that_is_none_for_a_cookie_is_refused_where_it_is_written() -> None:
    """Not in the first response."""
    with pytest.raises(DefinitionError, match="no name for a cookie"):
        Visitors("s", cookie="two words")
