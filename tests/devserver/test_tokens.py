"""Which tokens the REST API accepts."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from ldinstrument.devserver.responses import RefusedRequest
from ldinstrument.devserver.tokens import require_token

from .api.rest_answers import BASE, refused


@pytest.mark.parametrize(
    "token",
    ["", "sdk-12345678", "mob-12345678", "Bearer api-12345", "api-1 2", "0123456789abcdef01234567"],
)
def test_what_is_no_access_token_is_unauthorized(http, token):
    """SDK keys, mobile keys, client-side ids and a scheme before the token are refused, as by
    LaunchDarkly.
    """
    refused(http("GET", BASE, headers={"Authorization": token}), 401, "unauthorized")


def request_with(token: str | None) -> Request:
    headers = [] if token is None else [(b"authorization", token.encode())]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize("token", ["api-1", "x", "sdk", "0123456789abcdef0123456"])
def test_any_other_text_is_a_token(token):
    """Unless only some are."""
    assert require_token(request_with(token), None) == token
    assert require_token(request_with(token), {token}) == token
    for tokens in ((), {"api-other"}):
        with pytest.raises(RefusedRequest, match="Invalid access token"):
            require_token(request_with(token), tokens)


@pytest.mark.parametrize("token", [None, "", "SDK-1", "Mob-1", "a b", "0123456789ABCDEF01234567"])
def test_what_launchdarkly_never_takes_is_refused_even_where_it_is_listed(token):
    """In any case of its letters."""
    with pytest.raises(RefusedRequest) as caught:
        require_token(request_with(token), {token or ""})
    assert (caught.value.status, caught.value.code) == (401, "unauthorized")
