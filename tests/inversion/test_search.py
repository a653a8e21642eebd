"""The search for one target: what it reports, and what must not matter to it."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small
import tensorflow as tf
from ase import Atoms

from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.descent import Goal, Objective
from tfgen.inversion.population import separation
from tfgen.inversion.reconstruct import reconstruct
from tfgen.inversion.search import Budget, search
from tfgen.inversion.settings import Descent
from tfgen.structures.batch import StructureBatch

PURE = np.full(5, 78)
SETTINGS = small.QUICK


def run(goal: Goal, rounds: int = 2, threads: int = 1, fingerprint: Fingerprint | None = None):
    with ThreadPoolExecutor(threads) as executor:
        return search(fingerprint or small.fingerprint(), goal, Budget(rounds), executor, SETTINGS)


class TestSearch:
    def test_does_not_depend_on_the_number_of_threads(self):
        one, two = run(small.goal()), run(small.goal(), threads=2)
        np.testing.assert_array_equal(one.positions, two.positions)
        np.testing.assert_array_equal(one.loss, two.loss)
        assert one[2:-1] == two[2:-1]

    def test_says_what_it_did(self):
        calls = []
        with ThreadPoolExecutor(1) as executor:
            found = search(
                small.fingerprint(),
                small.goal(),
                Budget(3),
                executor,
                SETTINGS,
                lambda: calls.append(1),
            )
        assert len(calls) == found.rounds == 3
        assert found.descents == SETTINGS.population.initial + 3 * SETTINGS.moves.children
        coarse = found.descents * SETTINGS.population.descent.steps
        # Each of four generations promotes one or two candidates, and may polish one.
        least = SETTINGS.refinement.descent.steps
        most = 2 * least + SETTINGS.refinement.polish.steps
        assert coarse + 4 * least <= found.steps <= coarse + 4 * most
        assert found.seconds > 0
        assert not found.repeated

    def test_steps_count_jacobians(self):
        """An initial structure that nearly fits needs Gauss-Newton steps, 15 derivatives each."""
        refinement = dataclasses.replace(
            SETTINGS.refinement,
            near=1e12,
            alternation=dataclasses.replace(SETTINGS.refinement.alternation, max_alternations=0),
        )
        steps = []
        for iterations in (0, 1):
            gauss_newton = dataclasses.replace(refinement.gauss_newton, max_iterations=iterations)
            settings = dataclasses.replace(
                SETTINGS,
                population=dataclasses.replace(SETTINGS.population, size=1, initial=1),
                refinement=dataclasses.replace(
                    refinement, promising_loss=1e6, gauss_newton=gauss_newton
                ),
            )
            with ThreadPoolExecutor(1) as executor:
                found = search(small.fingerprint(), small.goal(), Budget(0), executor, settings)
            steps.append(found.steps)
        assert steps[1] == steps[0] + 15

    def test_candidates_are_distinct_and_sorted(self):
        found = run(small.goal(), rounds=4)
        assert (np.diff(found.loss) >= 0).all()
        for k in range(len(found.positions) - 1):
            between = separation(found.positions[k], found.positions[k + 1 :], PURE)
            assert (between >= SETTINGS.population.distinct_distance).all()

    def test_loss_is_that_of_the_positions(self):
        goal = small.goal()
        found = run(goal)
        values = small.fingerprint()(
            StructureBatch.of_clusters(
                tf.constant(found.positions), tf.constant([PURE] * len(found.loss), tf.int32)
            )
        )
        wanted = np.abs(values - goal.target) / goal.scale
        np.testing.assert_allclose(found.loss, wanted.mean(axis=1), atol=1e-5)

    def test_an_initial_structure_that_nearly_fits_where_gradients_fail(self):
        fingerprint = Fingerprint(NeverDifferentiable(["Pt"], 5.0, 1.0), ("mean", "std"))
        start = small.structures()[0].positions
        target = fingerprint.create([small.structures()[0]])[0]
        goal = small.goal(target=target + 1e-3, scale=np.ones(len(target)), tolerance=2e-3)
        found = run(goal._replace(initial=start[None]), fingerprint=fingerprint)
        np.testing.assert_allclose(found.positions[0], start, atol=1e-6)

    def test_more_initial_structures_than_a_generation_has(self):
        initial = np.array([s.positions for s in small.structures()[1:30]])
        found = run(small.goal(initial=initial), rounds=0)
        assert found.descents == len(initial) > SETTINGS.population.initial

    def test_gradients_that_fail_somewhere(self):
        """There a candidate is lost; the others find their way."""
        fingerprint = Fingerprint(Fails(["Pt"], 5.0, 1.0), ("mean", "std"))
        target = fingerprint.create([small.structures()[0]])[0]
        assert np.isfinite(target).all()
        goal = small.goal(target=target, scale=np.ones(len(target)))
        found = run(goal, fingerprint=fingerprint)
        assert np.isfinite(found.positions).all()
        assert np.isfinite(found.loss).all()
        near = min(np.linalg.norm(x[0] - x[1]) for x in found.positions)
        assert near > Fails.NEAREST

    def test_gradients_that_fail_everywhere(self):
        """Then nothing is found, but it ends."""
        fingerprint = Fingerprint(NeverDifferentiable(["Pt"], 5.0, 1.0), ("mean", "std"))
        target = fingerprint.create([small.structures()[0]])[0]
        assert np.isfinite(target).all()
        goal = small.goal(target=target, scale=np.ones(len(target)))
        found = run(goal, fingerprint=fingerprint)
        assert found.rounds == 2
        assert np.isfinite(found.positions).all()
        assert len(found.loss) == 1


class TestObjective:
    @pytest.mark.parametrize("more", [0, 1, 113])
    def test_losses_of_any_number_of_structures(self, more):
        """Some in pieces of one descent, some in calls for many pieces."""
        rng, goal = np.random.default_rng(more), small.goal()
        with ThreadPoolExecutor(2) as executor:
            objective = Objective(small.fingerprint(), goal, slice(None), executor, SETTINGS)
            x = 1.5 * rng.normal(size=[objective._piece_size() + more, 5, 3])
            x[-1, 0, 0] = np.nan
            found = objective.losses(x)
        whole = small.fingerprint().create([Atoms(PURE, positions=p) for p in x[:-1]])
        wanted = (np.abs(whole - goal.target) / goal.scale).mean(axis=1)
        np.testing.assert_allclose(found[:-1], wanted, rtol=1e-4, atol=1e-5)
        assert found[-1] == np.inf

    def test_equal_fingerprints_share_what_is_compiled(self):
        """Two objects of one configuration, by the times that TensorFlow traces the descriptor."""
        traces, losses = [], []
        for _ in range(2):
            fingerprint = Fingerprint(CountsTraces(["Pt"], 5.0, 1.0), ("mean",))
            target = np.zeros(fingerprint.size)
            goal = small.goal(target=target, scale=np.ones(len(target)))
            with ThreadPoolExecutor(2) as executor:
                objective = Objective(fingerprint, goal, slice(None), executor, SETTINGS)
                losses.append(objective.losses(small.structures()[0].positions[None])[0])
            traces.append(CountsTraces.traces)
        assert traces[0] == traces[1] > 0
        assert losses[0] == losses[1]


class CountsTraces(small.PairHistogram):
    """Counts how often it runs in Python."""

    traces = 0

    def __call__(self, batch):
        CountsTraces.traces += 1
        return super().__call__(batch)


class Fails(small.PairHistogram):
    """Not finite where the first two atoms are close."""

    NEAREST = 2.0

    def __call__(self, batch):
        squared = tf.reduce_sum((batch.positions[:, 0] - batch.positions[:, 1]) ** 2, axis=-1)
        # log of a negative number is no number.
        return super().__call__(batch) + 0.0 * tf.math.log(squared - 4.0)[:, None, None]


class NeverDifferentiable(small.PairHistogram):
    """The slip of a beginner: the root of an atom's distance from itself."""

    def __call__(self, batch):
        x = batch.positions
        itself = tf.sqrt(tf.reduce_sum((x[:, :, None] - x[:, None]) ** 2, axis=-1))
        return super().__call__(batch) + tf.reduce_sum(itself, axis=-1, keepdims=True)


def test_without_time_only_the_first_piece_is_followed():
    goal = small.goal()
    structures = np.stack([s.positions for s in small.structures()[:3]])
    few = dataclasses.replace(SETTINGS, jit_compile=False)
    with ThreadPoolExecutor(1) as executor:
        objective = Objective(
            small.fingerprint(), goal, slice(None), executor, few, expired=lambda: True
        )
        piece = objective._piece_size()
        many = np.concatenate([structures] * (2 * piece // 3 + 1))
        positions, losses = objective.descend(many, Descent(steps=3, step_length=0.1))
    assert np.isfinite(losses[:piece]).all()
    assert np.isinf(losses[piece:]).all()
    np.testing.assert_array_equal(positions[piece:], many[piece:])
    assert not np.array_equal(positions[:piece], many[:piece])


@pytest.mark.parametrize(("limit", "compiled"), [(None, True), (59.0, False), (60.0, True)])
def test_nothing_is_compiled_by_xla_where_there_is_little_time(monkeypatch, limit, compiled):
    seen = []

    def search(_fingerprint, _goal, budget, _workers, settings, *_):
        seen.append((budget.seconds, settings.jit_compile))
        raise InterruptedError

    monkeypatch.setattr("tfgen.inversion.reconstruct.search", search)
    targets = small.fingerprint().create(small.structures()[:1])
    with pytest.raises(InterruptedError):
        reconstruct(small.fingerprint(), targets, "Pt5", time_limit=limit)
    assert seen == [(limit, compiled)]
