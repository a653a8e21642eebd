"""Targets: what is asked for, and when a value is a hit."""

from __future__ import annotations

import numpy as np
import pytest

from tfgen.targets import (
    Target,
    check_targets,
    check_tolerance,
    compute_rates,
    default_tolerance,
    hits_all,
    largest_miss,
)

ENERGY, SIZE = "energy_per_atom", "radius_of_gyration"


class TestOf:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (0.75, (0.75, 0.75)),
            (1, (1.0, 1.0)),
            (np.float32(0.25), (0.25, 0.25)),
            (np.array(0.5), (0.5, 0.5)),
            ((0.5, 1), (0.5, 1.0)),
            ([0.5, 1.0], (0.5, 1.0)),
            (np.array([0.5, 1.0]), (0.5, 1.0)),
        ],
    )
    def test_numbers_and_pairs(self, value, expected):
        target = Target.of("x", value)
        assert (target.low, target.high) == expected
        assert type(target.low) is type(target.high) is float

    def test_a_range_whose_ends_are_equal_is_a_value(self):
        target = Target.of("x", (0.5, 0.5), 0.1)
        assert target.is_value
        assert target == Target.of("x", 0.5, 0.1)
        assert (target.value, target.to_json(), str(target)) == (0.5, 0.5, "x=0.5")

    def test_a_range(self):
        target = Target.of("x", (0.5, 1.0))
        assert not target.is_value
        assert (target.value, target.to_json()) == ((0.5, 1.0), [0.5, 1.0])
        assert str(target) == "x=0.5:1.0"

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("low", "target x is 'low'; a finite number or .low, high. is needed"),
            (True, "target x is True; a finite number"),
            (None, "target x is None; a finite number"),
            (float("nan"), "target x is nan; a finite number"),
            (10**400, "target x is inf; a finite number"),
            ((0.0, np.inf), "target x is .0.0, inf.; a finite number"),
            ([0.8, "b"], "target x is .0.8, 'b'.; a finite number"),
            ((0.1, 0.2, 0.3), "target x is .0.1, 0.2, 0.3.; a finite number"),
            ((), r"target x is \(\); a finite number"),
            ((0.3, 0.2), "target x is .0.3, 0.2.; low is above high"),
        ],
    )
    def test_nothing_else(self, value, message):
        with pytest.raises(ValueError, match=message):
            Target.of("x", value)

    @pytest.mark.parametrize("tolerance", [0, -1.0, np.nan, np.inf, "wide", True])
    def test_no_tolerance_that_is_none(self, tolerance):
        with pytest.raises(ValueError, match="tolerance of x is .*; a number above 0 is needed"):
            Target.of("x", 1.0, tolerance)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("energy_per_atom=0.75", Target(ENERGY, 0.75, 0.75)),
            ("x=-1e-3:2", Target("x", -0.001, 2.0)),
            ("x=2:2", Target("x", 2.0, 2.0)),
        ],
    )
    def test_reads_values_and_ranges(self, text, expected):
        assert Target.parse(text) == expected

    @pytest.mark.parametrize("target", [Target("x", 0.1, 0.1), Target("x", -1 / 3, 2e-7)])
    def test_reads_what_is_written(self, target):
        assert Target.parse(str(target)) == target

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x", "'x' is not of the form NAME=VALUE or NAME=LO:HI"),
            ("x=", "'x=' is not of the form"),
            ("x" * 1001, "a target has 1001 characters; at most 1000 are allowed"),
            ("=1", "'=1' is not of the form"),
            ("x=low", "'low' in 'x=low' is not a number or a range LO:HI"),
            ("x=1:", "'1:' in 'x=1:' is not a number or a range"),
            ("x=1:2:3", "'1:2:3' in 'x=1:2:3' is not a finite number or a range"),
            ("x=inf", "'inf' in 'x=inf' is not a finite number"),
            ("x=2:1", "the range in 'x=2:1' has LO above HI"),
        ],
    )
    def test_refuses_the_rest(self, text, message):
        with pytest.raises(ValueError, match=message):
            Target.parse(text)


class TestJudging:
    def test_of_a_value(self):
        target = Target.of("x", 0.75, 0.01)
        values = np.array([0.74, 0.76, 0.7599, 0.7601, 0.7, np.nan, np.inf])
        np.testing.assert_allclose(
            target.error(values), [-0.01, 0.01, 0.0099, 0.0101, -0.05, np.nan, np.inf]
        )
        # Rounding does not turn an end of the tolerance into a miss.
        assert 0.76 - 0.75 > 0.01
        assert target.hit(values).tolist() == [True, True, True, False, False, False, False]

    def test_of_a_range(self):
        target = Target.of("x", (1.0, 2.0))
        values = np.array([0.5, 1.0, 1.5, 2.0, 2.25, np.nan])
        np.testing.assert_allclose(target.error(values), [-0.5, 0.0, 0.0, 0.0, 0.25, np.nan])
        assert target.hit(values).tolist() == [False, True, True, True, False, False]

    def test_a_value_needs_a_tolerance(self):
        with pytest.raises(ValueError, match="target x has no tolerance yet"):
            Target.of("x", 1.0).hit(1.0)

    @pytest.mark.parametrize(
        ("targets", "values", "expected"),
        [
            ({ENERGY: 1.0}, {ENERGY: 1.1}, 2.0),
            ({ENERGY: 1.0}, {ENERGY: 0.9, SIZE: 9.0}, 2.0),
            ({ENERGY: (0.9, 1.2)}, {ENERGY: 1.0}, 0.0),
            ({ENERGY: (0.9, 1.2)}, {ENERGY: 0.91}, 0.8),
            ({ENERGY: (0.9, 1.2)}, {ENERGY: 1.25}, 2.0),
            ({ENERGY: (0.9, 1.2)}, {ENERGY: 0.8}, 3.0),
            ({ENERGY: (1.0, 1.02)}, {ENERGY: 1.005}, 0.5),
            ({ENERGY: (1.0, 1.0)}, {ENERGY: 1.1}, 2.0),
            ({ENERGY: 1.0, SIZE: 2.0}, {ENERGY: 1.05, SIZE: 2.3}, 3.0),
            ({ENERGY: 1.0}, {ENERGY: np.nan}, np.inf),
            ({}, {ENERGY: 1.0}, 0.0),
        ],
    )
    def test_the_worst_property_counts(self, targets, values, expected):
        tolerance = {ENERGY: 0.05, SIZE: 0.1}
        asked = [Target.of(name, value, tolerance[name]) for name, value in targets.items()]
        assert largest_miss(asked, values) == pytest.approx(expected)
        assert hits_all(asked, values) == (expected <= 1.0)


class TestRates:
    def test_of_a_value_and_a_range(self):
        targets = [Target.of("a", 1.0, 0.1), Target.of("b", (2.0, 3.0))]
        values = {
            "a": np.array([1.05, 1.05, 0.8, 1.0, np.nan]),
            "b": np.array([2.5, 3.5, 2.0, 2.0, 2.0]),
        }
        eligible = np.array([True, True, True, False, True])
        rates = compute_rates(targets, values, eligible)
        assert rates.hits.tolist() == [True, False, False, False, False]
        assert rates.hit_rate == 0.2
        assert rates.mae == pytest.approx({"a": 0.1, "b": 0.125})  # (0.05 + 0.05 + 0.2) / 3
        assert rates.bias == pytest.approx({"a": -0.1 / 3, "b": 0.125})

    def test_of_a_property_that_is_known_of_none(self):
        rates = compute_rates(
            [Target.of("a", 1.0, 0.1)], {"a": np.full(2, np.nan)}, np.ones(2, bool)
        )
        assert rates == (None, {"a": None}, {"a": None})
        assert rates.hit_rate is None


class TestChecks:
    NAMES = (ENERGY, "asphericity")

    def test_targets_keep_their_order(self):
        given = {"asphericity": np.float32(0.25), ENERGY: [0.5, 1]}
        assert check_targets(given, self.NAMES) == [
            Target("asphericity", 0.25, 0.25),
            Target(ENERGY, 0.5, 1.0),
        ]

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ({}, "no target given; the model knows energy_per_atom, asphericity"),
            ({"hue": 1.0}, "property 'hue' is unknown; the model knows energy_per_atom, asph"),
            ({"asphericity": (0.3, 0.2)}, "target asphericity is .*; low is above high"),
            ({"asphericity": 1e300}, r"target asphericity is 1e\+300; its size must not exceed"),
        ],
    )
    def test_of_targets(self, targets, message):
        with pytest.raises(ValueError, match=message):
            check_targets(targets, self.NAMES)

    def test_of_tolerances(self):
        assert check_tolerance("tolerance of x", np.float32(0.5)) == 0.5
        with pytest.raises(ValueError, match="tolerance of x is 0; a number above 0 is needed"):
            check_tolerance("tolerance of x", 0)


@pytest.mark.parametrize(
    ("name", "ends", "expected"),
    [(ENERGY, (0.0, 10.0), 0.01), (SIZE, (2.0, 4.0), 0.1), (SIZE, (2.0, 2.0), 1e-9)],
)
def test_default_tolerances(name, ends, expected):
    assert default_tolerance(name, *ends) == pytest.approx(expected)
