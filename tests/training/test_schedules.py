"""Schedules are pure functions of the step, with the values that their papers give."""

import math

import pytest

from hf_vae.training import CyclicalSchedule, LinearSchedule, SigmoidSchedule, TanhSchedule, make_schedule


def test_values():
    assert make_schedule("constant")(0) == make_schedule("constant")(10**6) == 1.0
    linear = LinearSchedule(steps=100, start=0.2)
    assert [linear(step) for step in (0, 50, 100, 500)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    sigmoid = SigmoidSchedule(midpoint=23_100, slope=3.25e-4)
    assert sigmoid(23_100) == 0.5
    assert sigmoid(30_000) == pytest.approx(1 / (1 + math.exp(-3.25e-4 * 6_900)))
    tanh = TanhSchedule(midpoint=3_500, width=1_000)
    assert tanh(4_500) == pytest.approx((math.tanh(1) + 1) / 2)


def test_cycles_have_a_zero_phase_a_ramp_and_a_plateau():
    cyclical = CyclicalSchedule(period=100, zero=0.5, rise=0.25, cycles=2, weight=0.8)
    assert {cyclical(step) for step in range(50)} == {0.0}
    assert [cyclical(step) for step in (50, 60, 75, 99)] == pytest.approx([0.0, 0.32, 0.8, 0.8])
    assert cyclical(100) == cyclical(149) == 0.0
    assert {cyclical(step) for step in range(200, 400)} == {0.8}


def test_a_steep_sigmoid_does_not_overflow():
    assert SigmoidSchedule(midpoint=10**6, slope=1.0)(0) == 0.0


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("linear", {"steps": 0}, "`steps` is 0"),
        ("sigmoid", {"midpoint": 0, "slope": 1.0}, "`midpoint` is 0"),
        ("tanh", {"midpoint": 10, "width": 0}, "`width` is 0"),
        ("cyclical", {"period": 0}, "`period` is 0"),
        ("cyclical", {"period": 10, "zero": 0.8, "rise": 0.3}, "parts of a cycle"),
        ("constant", {"weight": -1.0}, "`weight` is -1.0"),
        ("cosine", {}, "'cosine' does not exist; choose one of 'constant'"),
        ("linear", {"step": 3}, "takes steps, start, weight"),
        ("linear", {}, "takes steps, start, weight"),
    ],
)
def test_bad_schedules_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(name, **options)
