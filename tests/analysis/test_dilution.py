"""Dilution: the share before the exposure, and the effect without it."""

from __future__ import annotations

import pytest

from ldinstrument.analysis import Figure, PairedStatistics, dilution, z_test


def test_the_undiluted_effect_is_the_one_that_was_there(populations, moments):
    """Sessions of which a third lies before the exposure show two thirds of a 12 % effect."""
    random = populations.random
    before = {name: random.gamma(4, 10, 20_000) for name in "ab"}
    after = {"a": random.gamma(4, 20, 20_000), "b": 1.12 * random.gamma(4, 20, 20_000)}
    whole = {name: before[name] + after[name] for name in "ab"}
    measured = z_test(moments(whole["a"]), moments(whole["b"])).relative_difference
    activity = PairedStatistics(zip(before["a"], whole["a"], strict=True))
    found = dilution(activity, measured)
    assert measured.value == pytest.approx(0.08, abs=0.01)
    assert found.share.lower < 1 / 3 < found.share.upper
    assert found.undiluted.value == pytest.approx(0.12, abs=0.015)
    assert found.undiluted.lower < 0.12 < found.undiluted.upper
    assert found.undiluted.source == found.share.source == "ldinstrument, share before the exposure"


def test_what_cannot_be_undiluted_is_said():
    """Without a share, without an effect, or with everything before, there is a reason."""
    effect, none = Figure(0.1, "x"), Figure(None, "x", reason="too few")
    half = PairedStatistics([(1.0, 2.0), (1.0, 2.0)])
    assert dilution(half, effect).undiluted.value == pytest.approx(0.2)
    assert dilution(half, none).undiluted.reason == "too few"
    assert "not known" in dilution(PairedStatistics(), effect).undiluted.reason
    assert "all activity" in dilution(PairedStatistics([(2.0, 2.0)] * 2), effect).undiluted.reason
