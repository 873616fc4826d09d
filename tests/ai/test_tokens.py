"""Sealed tokens: what they say to who has the secret, and nothing to anybody else."""

from __future__ import annotations

from typing import Any

import pytest

from ldinstrument.ai.tokens import Forged, read_token, token_of

PAYLOADS: list[Any] = [
    {},
    {"c": {"user": "u-1"}},
    {"c": {"user": "ünï-✓"}, "x": 2**40},
    {"c": {"user": "u" * 2000}, "r": {"runId": "r", "version": 3}},
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_went_in_comes_out(payload: Any) -> None:
    """Whatever its length and letters, short when it repeats itself."""
    token = token_of(payload, ["secret"])
    assert read_token(token, ["secret"])[1] == payload
    assert len(token) < 300


def test_no_two_are_alike() -> None:
    """One payload gives tokens of different bodies, with ids of their own."""
    tokens = [token_of({"c": {"user": "u-1"}}, ["secret"]) for _ in range(50)]
    assert len({token.split(".")[0][22:] for token in tokens}) == 50
    assert len({read_token(token, ["secret"])[0] for token in tokens}) == 50


def test_changed_anywhere() -> None:
    """Each letter is signed: changed, the token is forged, or the very same one by its id."""
    token = token_of({"c": {"user": "u-1"}}, ["secret"])
    id, payload = read_token(token, ["secret"])
    for place, letter in enumerate(token):
        other = token[:place] + ("A" if letter != "A" else "B") + token[place + 1 :]
        try:
            assert read_token(other, ["secret"]) == (id, payload)
        except Forged:
            continue
        assert place == len(token) - 1  # its last two bits mean nothing


@pytest.mark.parametrize("secrets", [["other"], ["secre"], ["other", "more"]])
def test_another_secret(secrets: list[str]) -> None:
    """Who has not the secret reads nothing."""
    with pytest.raises(Forged):
        read_token(token_of({"c": {}}, ["secret"]), secrets)


def test_an_older_secret() -> None:
    """Any of the known secrets reads what it has sealed; the first one seals."""
    assert read_token(token_of({"x": 1}, ["old"]), ["new", "old"])[1] == {"x": 1}
    assert read_token(token_of({"x": 1}, ["new", "old"]), ["new"])[1] == {"x": 1}


@pytest.mark.parametrize("token", ["", ".", "a.b", "é.é", "....", "\udcff.x", "A" * 9000])
def test_nonsense(token: str) -> None:
    """Whatever a browser sends is forged, and no error of another kind."""
    with pytest.raises(Forged):
        read_token(token, ["secret"])
