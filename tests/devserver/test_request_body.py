"""Bodies that are no events: bounded wherever they are read."""

from __future__ import annotations

import pytest

from ldinstrument.devserver.request_body import MOST_BYTES


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v2/flags/default"),
        ("PATCH", "/api/v2/metrics/default/m"),
        ("PUT", "/dev/flags/f"),
        ("POST", "/dev/forms/flag"),
        ("POST", "/ldinstrument/program"),
        ("REPORT", "/sdk/evalx/env/context"),
    ],
)
def test_a_body_beyond_the_bound_is_refused_while_it_comes(http, method, path):
    """In chunks without a length: 413, and the server answers on."""

    chunks = iter([b"x" * MOST_BYTES, b"x"])
    assert http(method, path, data=chunks).status_code == 413
    assert http("GET", "/dev/flags").status_code == 200
