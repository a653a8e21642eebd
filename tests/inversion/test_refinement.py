"""Refinement: candidates are completed with patience where features are not differentiable."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion import refinement as module
from tfgen.inversion.descent import Goal, Objective
from tfgen.inversion.gauss_newton import Refined
from tfgen.inversion.population import Population
from tfgen.inversion.refinement import Candidate, Refinement
from tfgen.inversion.sampler import Sampler
from tfgen.inversion.settings import SearchSettings


@pytest.fixture
def make():
    with ThreadPoolExecutor(1) as executor:

        def make_(
            fingerprint: Fingerprint, goal: Goal, settings: SearchSettings = small.QUICK, **options
        ) -> Refinement:
            objective = Objective(fingerprint, goal, slice(None), executor, settings)
            sampler = Sampler(goal, np.random.default_rng(0))
            return Refinement(fingerprint, goal, objective, sampler, settings, **options)

        yield make_


def near_goal(poolings: tuple[str, ...], tolerance: float):
    """A fingerprint, a Pt5 cluster's value as the goal, and positions close to the cluster's."""
    fingerprint = Fingerprint(small.fingerprint().descriptor, poolings)
    start = small.structures()[0].positions
    target = fingerprint.create([small.structures()[0]])[0]
    goal = small.goal(target=target, scale=np.ones(len(target)), tolerance=tolerance)
    return fingerprint, goal, start + 0.02 * np.random.default_rng(3).normal(size=start.shape)


def test_completes_what_is_not_differentiable(make):
    """Maxima and minima alone: neither descents nor Gauss-Newton steps get there."""
    fingerprint, goal, near = near_goal(("max", "min"), 1e-2)
    refinement = make(fingerprint, goal)
    candidate = Candidate(near, refinement._exact_loss(near))
    ended = refinement._alternate(candidate, 6)
    assert refinement._exact_loss(ended.positions) < 0.1 * candidate.loss
    assert ended.loss < candidate.loss
    late = make(fingerprint, goal, expired=lambda: True)
    assert late._alternate(candidate, 6) is candidate


@pytest.mark.parametrize(("poolings", "reached"), [(("max", "min"), True), (("mean",), False)])
def test_alternates_before_a_candidate_is_dropped(poolings, reached, make, monkeypatch):
    """Where features are not differentiable, if the first descent has not brought the loss down."""
    monkeypatch.setattr(module, "refine", lambda *given: Refined(given[1], 0))  # of no help
    fingerprint, goal, near = near_goal(poolings, 2e-3)
    refinement = make(fingerprint, goal)
    counts, alternate = [], refinement._alternate
    monkeypatch.setattr(
        refinement,
        "_alternate",
        lambda candidate, count: counts.append(count) or alternate(candidate, count),
    )
    refinement.promote(Population.of(near[None], np.zeros(1)))
    attempts = small.QUICK.refinement.alternation.max_attempts
    assert counts == ([attempts] if reached else [])
    assert refinement.reached() or not reached


@pytest.mark.parametrize("non_differentiable", [True, False])
@pytest.mark.parametrize("patience", [6, 2])
def test_patience(non_differentiable, patience, make, monkeypatch):
    """From the best and from the last in turn; with differentiable features, only once."""
    begun = []

    def follow(candidate, descent):
        begun.append((candidate.positions[0, 0], descent.step_length))
        return Candidate(np.full([5, 3], 10.0 + len(begun)), 0.2)

    settings = small.QUICK.refinement
    alternation = dataclasses.replace(
        settings.alternation, patience=patience, step_lengths=(0.3, 0.2, 0.1)
    )
    settings = dataclasses.replace(
        small.QUICK, refinement=dataclasses.replace(settings, alternation=alternation)
    )
    refinement = make(small.fingerprint(), small.goal(), settings)
    monkeypatch.setattr(refinement, "_follow", follow)
    monkeypatch.setattr(refinement, "_refine", lambda positions: Candidate(positions, 0.3))
    monkeypatch.setattr(refinement, "_exact_loss", lambda _: 1.0)
    refinement._non_differentiable = non_differentiable
    candidate = Candidate(np.zeros([5, 3]), 0.1)
    assert refinement._alternate(candidate, 12) is candidate
    every = [(0, 0.3), (11, 0.2), (0, 0.1), (13, 0.3), (0, 0.2), (15, 0.1)]
    assert begun == (every[:patience] if non_differentiable else every[:1])


def test_counts_the_derivatives_of_jacobians(make, monkeypatch):
    """As many as Gauss-Newton steps tell."""
    monkeypatch.setattr(module, "refine", lambda *given: Refined(given[1], 45))
    fingerprint, goal, near = near_goal(("mean", "std"), 1e-2)
    refinement = make(fingerprint, goal)
    for n in (1, 2):
        refinement._refine(near)
        assert refinement.derivatives == 45 * n
