"""The search inside a TensorFlow graph: what its parts keep and change, and that seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk
from ase.cluster import Octahedron
from ase.data import covalent_radii
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.graph_population import (
    Candidates,
    _rank_in_element,
    _rotations,
    propose,
    select_distinct,
)
from tfgen.inversion.graph_search import GraphSearch, Lattice, Moments, Problem, sphere_radius
from tfgen.inversion.settings import Descent, GraphSearchSettings
from tfgen.structures.batch import StructureBatch

PURE = [78] * 6
ALLOY = [29, 29, 79, 79, 79, 79]
SEED = tf.constant([3, 5], tf.int32)


@pytest.fixture(scope="module")
def graph_search():
    acsf = ACSF(
        ["Cu", "Au"],
        8.0,
        g2_params=[[0.5, r_s] for r_s in (1.5, 2.5, 3.5, 4.5)],
        g5_params=[[0.05, 2, 1], [0.05, 2, -1]],
    )
    return GraphSearch(Fingerprint(acsf, ("mean", "std", "max", "min")))


@pytest.fixture(scope="module")
def problem(graph_search):
    """Two targets: fingerprints of an octahedron with its copper atoms side by side, or across."""
    octahedron = Octahedron("Au", 2)
    side, across = octahedron.copy(), octahedron.copy()
    distances = octahedron.get_distances(0, range(6))
    side.numbers[[0, int(np.argsort(distances)[1])]] = 29
    across.numbers[[0, int(np.argmax(distances))]] = 29
    sides = [a[np.argsort(a.numbers, kind="stable")] for a in (side, across)]
    targets = graph_search.fingerprint.create(sides).astype(np.float32)
    problem = Problem(
        numbers=tf.constant([ALLOY, ALLOY], tf.int32),
        targets=tf.constant(targets),
        scale=tf.constant(np.linspace(0.5, 2.0, targets.shape[1]), tf.float32),
    )
    positions = tf.constant(np.array([a.positions for a in sides]), tf.float32)
    return problem, positions


def candidates_of(losses: list[list[float]]) -> Candidates:
    """Candidates of one atom, whose x is their place in the list."""
    loss = np.array(losses, np.float32)
    positions = np.zeros([*loss.shape, 1, 3], np.float32)
    positions[..., 0, 0] = np.arange(loss.shape[1])
    return Candidates(tf.constant(positions), tf.constant(loss))


class TestSelect:
    def test_keeps_the_best_in_order(self):
        found = select_distinct(
            candidates_of([[0.5, 0.1, 0.9, 0.3], [4.0, 3.0, 2.0, 1.0]]), 3, 1e-3
        )
        np.testing.assert_allclose(found.loss, [[0.1, 0.3, 0.5], [1.0, 2.0, 3.0]])
        np.testing.assert_array_equal(found.positions[:, :, 0, 0], [[1, 3, 0], [3, 2, 1]])

    def test_keeps_one_of_several_copies(self):
        found = select_distinct(candidates_of([[0.1, 0.5, 0.10001, 0.3, 0.09999]]), 3, 1e-3)
        np.testing.assert_allclose(found.loss, [[0.09999, 0.3, 0.5]])
        np.testing.assert_array_equal(found.positions[0, :, 0, 0], [4, 3, 1])

    def test_marks_places_that_no_distinct_candidate_fills(self):
        found = select_distinct(candidates_of([[0.1, 0.1, 0.1, 0.2]]), 4, 1e-3)
        np.testing.assert_allclose(found.loss, [[0.1, 0.2, np.inf, np.inf]])
        assert np.isfinite(found.positions).all()

    def test_puts_failures_last(self):
        found = select_distinct(candidates_of([[np.inf, 0.7, np.inf, 0.2]]), 3, 1e-3)
        np.testing.assert_allclose(found.loss, [[0.2, 0.7, np.inf]])

    @given(st.lists(st.floats(2**-9, 8, width=32), min_size=1, max_size=12), st.integers(1, 6))
    def test_is_a_loop_over_the_sorted_candidates(self, losses, survivors):
        survivors = min(survivors, len(losses))
        found = select_distinct(candidates_of([losses]), survivors, 1e-3)
        ordered = np.sort(np.array(losses, np.float32))
        gaps = np.diff(ordered, prepend=np.float32(-np.inf))
        margin = np.abs(gaps - np.float32(1e-3) * ordered)
        distinct = ordered[gaps >= np.float32(1e-3) * ordered]
        wanted = np.full(survivors, np.inf, np.float32)
        wanted[: len(distinct)] = distinct[:survivors]
        if margin.min() > 1e-6:  # else rounding decides
            np.testing.assert_array_equal(found.loss[0], wanted)
        assert found.loss[0, 0] == ordered[0]
        chosen = found.positions[0, :, 0, 0].numpy().astype(int)
        assert len(set(chosen)) == survivors
        filled = np.isfinite(found.loss[0])
        np.testing.assert_array_equal(np.float32(losses)[chosen][filled], found.loss[0][filled])


class TestSample:
    def test_fill_a_ball_of_the_right_density(self, graph_search):
        numbers = tf.constant([PURE, ALLOY], tf.int32)
        found = graph_search.sample(numbers, 2000, SEED)
        assert found.shape == (2, 2000, 6, 3)
        assert found.dtype == tf.float32
        for x, z in zip(found.numpy(), (PURE, ALLOY), strict=True):
            # The atoms' spheres of covalent radius take that share of the ball's volume.
            ball = np.sum(covalent_radii[z] ** 3) / 0.55
            reach = np.linalg.norm(x, axis=-1).ravel()
            assert reach.max() <= ball ** (1 / 3) * (1 + 1e-6)
            # Uniform: the enclosed volume is uniform, and no direction is preferred.
            assert np.quantile(reach**3 / ball, [0.25, 0.5, 0.75]) == pytest.approx(
                [0.25, 0.5, 0.75], abs=0.02
            )
            assert np.abs(x.mean(axis=(0, 1))).max() < 0.05 * ball ** (1 / 3)

    def test_sphere_radius(self):
        found = sphere_radius(tf.constant([[78], [29]], tf.int32), 0.4, tf.float64)
        wanted = covalent_radii[[78, 29]] / 0.4 ** (1 / 3)
        np.testing.assert_allclose(found, wanted)

    def test_repeat_with_the_seed_only(self, graph_search):
        numbers = tf.constant([PURE], tf.int32)
        first = graph_search.sample(numbers, 4, SEED)
        np.testing.assert_array_equal(graph_search.sample(numbers, 4, SEED), first)
        assert np.abs(graph_search.sample(numbers, 4, SEED + 1) - first).min() > 0
        assert len(np.unique(first.numpy().round(5))) == first.numpy().size


@pytest.fixture(scope="module")
def parents():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(2, 5, 6, 3)) * 2.5
    loss = np.sort(rng.uniform(size=(2, 5)))
    loss[1, 3:] = np.inf  # not all places are filled
    return Candidates(tf.constant(positions, tf.float32), tf.constant(loss, tf.float32))


@pytest.fixture(scope="module")
def moved(parents):
    return propose(parents, tf.constant([PURE, ALLOY], tf.int32), 400, SEED)


class TestPropose:
    def test_gives_finite_positions_near_the_parents(self, parents, moved):
        assert moved.shape == (2, 400, 6, 3)
        assert np.isfinite(moved).all()
        assert np.linalg.norm(moved, axis=-1).max() < 20.0

    def test_repeats_with_the_seed_only(self, parents, moved):
        numbers = tf.constant([PURE, ALLOY], tf.int32)
        np.testing.assert_array_equal(propose(parents, numbers, 400, SEED), moved)
        assert (np.abs(propose(parents, numbers, 400, SEED + 1) - moved).max(axis=(2, 3)) > 0).all()

    def test_makes_something_new_of_almost_every_parent(self, parents, moved):
        parents = _distances(parents.positions.numpy())
        for target in range(2):
            children = _distances(moved.numpy()[target])
            change = np.abs(children[:, None] - parents[target][None]).max(axis=-1).min(axis=1)
            assert (change > 0.05).mean() > 0.9

    def test_uses_every_move(self, parents):
        """Told apart by how many atoms keep their distances: all but 1-3, halves, or none."""
        numbers = tf.constant([PURE], tf.int32)
        one = Candidates(parents.positions[:1, :1], parents.loss[:1, :1])
        children = propose(one, numbers, 400, SEED).numpy()[0]
        parent = one.positions.numpy()[0, 0]
        kept = np.array([_atoms_in_place(child, parent) for child in children])
        assert (kept <= 2).mean() > 0.15  # rattled
        assert ((kept >= 3) & (kept < 6)).mean() > 0.3  # relocated, twisted, spliced

    def test_of_an_alloy_exchanges_elements(self, parents):
        """A child that lies on its parent's sites, with one copper and one gold atom swapped."""
        one = Candidates(parents.positions[:1, :1], parents.loss[:1, :1])
        parent = one.positions.numpy()[:, 0]
        sites = np.sort(_distances(parent), axis=-1)
        exchanged = 0
        for child in propose(one, tf.constant([ALLOY], tf.int32), 400, SEED).numpy()[0]:
            same_sites = np.abs(np.sort(_distances(child[None])) - sites).max() < 1e-3
            same_order = np.abs(_distances(child[None]) - _distances(parent)).max() < 1e-3
            if same_sites and not same_order:
                copper = np.sort(_distances(child[None, :2])), np.sort(_distances(parent[:, :2]))
                exchanged += np.abs(copper[0] - copper[1]).max() > 1e-3
        assert exchanged > 20

    def test_splices_halves_of_two_parents_element_by_element(self):
        """An atom's distance from the centre tells its parent and its element."""
        directions = np.random.default_rng(1).normal(size=(2, 3, 3))
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        # Pairs of opposite atoms, so that the centre is the middle: 2 of copper, 4 of gold.
        parents = np.stack([directions, -directions], axis=2).reshape(2, 6, 3)
        parents[:, 2:] *= 4.0
        parents[1] *= 100.0
        parents = Candidates(
            tf.constant(parents[None], tf.float32), tf.constant([[0.1, 0.2]], tf.float32)
        )
        children = propose(parents, tf.constant([ALLOY], tf.int32), 600, SEED).numpy()[0]
        radii = np.linalg.norm(children, axis=-1)
        from_large = radii > 20.0
        # Only splicing mixes parents: relocation puts atoms 2-3 Å beside others of the same.
        mixed = from_large.any(axis=1) & ~from_large.all(axis=1)
        assert mixed.sum() > 30
        radii, from_large = radii[mixed], from_large[mixed]
        np.testing.assert_allclose(radii[:, :2], np.where(from_large[:, :2], 100, 1), rtol=1e-4)
        np.testing.assert_allclose(radii[:, 2:], np.where(from_large[:, 2:], 400, 4), rtol=1e-4)
        # Of every element the same share, up to one atom of two.
        shares = from_large[:, :2].mean(axis=1) - from_large[:, 2:].mean(axis=1)
        assert np.abs(shares).max() <= 0.5

    def test_of_one_atom_is_harmless(self):
        parents = Candidates(tf.zeros([1, 2, 1, 3]), tf.constant([[0.1, np.inf]], tf.float32))
        assert np.isfinite(propose(parents, tf.constant([[78]], tf.int32), 50, SEED)).all()

    def test_of_failures_is_harmless(self, parents):
        failed = parents._replace(loss=tf.fill([2, 5], np.float32(np.inf)))
        assert np.isfinite(propose(failed, tf.constant([PURE, ALLOY], tf.int32), 20, SEED)).all()


def _distances(positions: np.ndarray) -> np.ndarray:
    """[..., pairs] distances of [..., atoms, 3], pairs in order."""
    i, j = np.triu_indices(positions.shape[-2], 1)
    return np.linalg.norm(positions[..., i, :] - positions[..., j, :], axis=-1)


def _atoms_in_place(child: np.ndarray, parent: np.ndarray) -> int:
    """Most atoms of the child that keep their distances to one and the same atom, itself too."""
    a = np.linalg.norm(child[:, None] - child[None], axis=-1)
    b = np.linalg.norm(parent[:, None] - parent[None], axis=-1)
    return int((np.abs(a - b) < 1e-3).sum(axis=1).max())


def test_rank_in_element():
    found = _rank_in_element(tf.constant([PURE, ALLOY], tf.int32))
    np.testing.assert_allclose(found[0], (np.arange(6) + 0.5) / 6)
    np.testing.assert_allclose(found[1], [0.25, 0.75, 0.125, 0.375, 0.625, 0.875])


def test_rotations_are_those_of_scipy():
    q = np.random.default_rng(2).normal(size=(20, 4))
    found = _rotations(tf.constant(q, tf.float64))
    wanted = Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix()
    np.testing.assert_allclose(found, wanted, atol=1e-10)


class TestDescent:
    def test_loss_is_l1_on_scaled_features(self, graph_search, problem):
        problem, positions = problem
        moved = positions + np.random.default_rng(3).normal(size=positions.shape) * 0.1
        structures = [Octahedron("Au", 2) for _ in range(2)]
        for structure, x in zip(structures, moved.numpy(), strict=True):
            structure.numbers, structure.positions = ALLOY, x
        features = graph_search.fingerprint.create(structures)
        wanted = np.mean(np.abs(features - problem.targets) / problem.scale, axis=1)
        np.testing.assert_allclose(graph_search.loss(moved, problem), wanted, rtol=1e-4)
        np.testing.assert_allclose(graph_search.loss(positions, problem), 0.0, atol=1e-5)

    def test_lowers_the_loss_of_every_target(self, graph_search, problem):
        problem, positions = problem
        starts = (
            positions[:, None]
            + np.random.default_rng(4).normal(size=(2, 8, 6, 3)).astype(np.float32) * 0.25
        )
        before = graph_search.descend(starts, problem, 0, 0.1)
        np.testing.assert_array_equal(before.positions, starts)
        after = tf.function(graph_search.descend)(starts, problem, tf.constant(150), 0.1)
        assert (after.loss < before.loss).numpy().mean() > 0.9
        assert (after.loss.numpy().min(axis=1) < 0.05 * before.loss.numpy().min(axis=1)).all()
        # The loss told is that of the positions told, target by target.
        for k in (0, 7):
            np.testing.assert_allclose(
                graph_search.loss(after.positions[:, k], problem),
                after.loss[:, k],
                rtol=1e-3,
                atol=1e-6,
            )

    def test_calls_failures_infinite(self, graph_search, problem):
        problem, positions = problem
        bad = problem._replace(targets=tf.constant([[np.nan], [1.0]]) * problem.targets)
        found = graph_search.descend(positions[:, None], bad, 2, 0.1)
        np.testing.assert_array_equal(np.isinf(found.loss), [[True], [False]])

    def test_calls_positions_that_are_not_finite_failures(self, graph_search, problem):
        problem, positions = problem
        starts = np.tile(positions.numpy()[:, None], [1, 2, 1, 1])
        starts[0, 1, 2] = np.nan
        found = graph_search.descend(tf.constant(starts), problem, 2, 0.1)
        np.testing.assert_array_equal(np.isinf(found.loss), [[False, True], [False, False]])

    def test_search_repeats_and_never_gets_worse(self, graph_search, problem):
        problem, _ = problem

        settings = GraphSearchSettings(
            initial=12,
            initial_descent=Descent(steps=25, step_length=0.2),
            population=4,
            children=12,
            descent=Descent(steps=25, step_length=0.1),
        )
        own = GraphSearch(graph_search.fingerprint, settings)

        @tf.function
        def search(seed):
            first = own.begin(problem, seed)
            return first, own.improve(first, problem, seed + 1)

        first, better = search(SEED)
        for found in (first, better):
            assert found.positions.shape == (2, 4, 6, 3)
            assert (np.diff(found.loss) >= 0).all()
        assert (better.loss.numpy() <= first.loss.numpy() + 1e-7).all()
        assert (better.loss.numpy()[:, -1] < first.loss.numpy()[:, -1]).all()
        for found, again in zip(
            tf.nest.flatten((first, better)), tf.nest.flatten(search(SEED)), strict=True
        ):
            np.testing.assert_array_equal(found, again)
        assert np.abs(search(SEED + 7)[0].loss - first.loss).max() > 0

    def test_search_is_a_beginning_and_rounds(self, graph_search, problem):
        problem, _ = problem
        short = Descent(steps=3, step_length=0.2)
        for rounds in (0, 2):
            settings = GraphSearchSettings(
                initial=5, initial_descent=short, population=3, children=4, descent=short,
                rounds=rounds,
            )  # fmt: skip
            own = GraphSearch(graph_search.fingerprint, settings)
            seeds = tf.random.split(SEED, rounds + 1)
            wanted = own.begin(problem, seeds[0])
            for seed in seeds[1:]:
                wanted = own.improve(wanted, problem, seed)
            found = own.search(problem, SEED)
            np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-5)
            np.testing.assert_allclose(found.positions, wanted.positions, atol=1e-4)


@pytest.fixture(scope="module")
def one(problem):
    """The first target, and three structures near it."""
    problem, positions = problem
    one = problem._replace(numbers=problem.numbers[:1], targets=problem.targets[:1])
    noise = np.random.default_rng(0).normal(size=[3, *positions.shape[1:]])
    return one, positions[:1] + 0.3 * tf.constant(noise, tf.float32)


class TestFollow:
    """Descents towards one target, in parts."""

    def test_parts_are_the_whole(self, graph_search, one):
        problem, start = one
        free = tf.ones([6, 1])

        def part(x, moments, first, stop):
            schedule = tf.constant([first, stop, 12.0, 0.1])
            return graph_search.follow(x, problem, moments, schedule, free)

        whole, _, loss = part(start, Moments.zeros(start), 0.0, 12.0)
        x, moments = start, Moments.zeros(start)
        for first in (0.0, 4.0, 8.0):
            x, moments, final = part(x, moments, first, first + 4.0)
        np.testing.assert_allclose(x, whole, atol=1e-4)
        np.testing.assert_allclose(final, loss, atol=1e-4)
        before = part(start, Moments.zeros(start), 0.0, 0.0)[2]
        assert (final.numpy() < before.numpy()).all()

    def test_without_steps_gives_the_loss(self, graph_search, one):
        """L1 on scaled features, by a loop over structures."""
        problem, start = one
        x, _, loss = graph_search.follow(
            start, problem, Moments.zeros(start), tf.zeros([4]), tf.ones([6, 1])
        )
        np.testing.assert_array_equal(x, start)
        for structure, found in zip(start.numpy(), loss.numpy(), strict=True):
            values = graph_search.fingerprint.create(Atoms(ALLOY, positions=structure))[0]
            wanted = np.mean(np.abs(values - problem.targets[0]) / problem.scale)
            assert found == pytest.approx(wanted, rel=1e-4)

    def test_moves_free_atoms_only(self, graph_search, one):
        problem, start = one
        free = tf.constant([[1.0], [0.0], [1.0], [0.0], [0.0], [1.0]])
        schedule = tf.constant([0.0, 5.0, 5.0, 0.1])
        x, _, _ = graph_search.follow(start, problem, Moments.zeros(start), schedule, free)
        moved = (x != start).numpy().any(axis=2)
        np.testing.assert_array_equal(moved, np.tile(free[:, 0] > 0, [3, 1]))

    def test_sees_across_the_borders_of_a_cell(self):
        acsf = ACSF(["Pt"], 4.0, g2_params=[[1.0, 2.5]], g5_params=[[0.1, 2, 1]], periodic=True)
        fingerprint = Fingerprint(acsf, ("mean", "std"))
        crystal = bulk("Pt", cubic=True)
        crystal.rattle(0.2, seed=1)
        target = fingerprint.create([bulk("Pt", cubic=True)])
        batch = StructureBatch.from_ase([crystal], r_cut=5.0, dtype="float32")
        problem = Problem(batch.numbers, tf.constant(target, tf.float32), tf.ones(target.shape[1]))
        lattice = Lattice(batch.cell, batch.pbc, batch.neighbours)

        def after(steps):
            schedule = tf.constant([0.0, steps, steps, 0.05])
            x = batch.positions
            return GraphSearch(fingerprint).follow(
                x, problem, Moments.zeros(x), schedule, tf.ones([4, 1]), lattice
            )

        wanted = np.abs(fingerprint.create([crystal]) - target).mean()
        assert float(after(0.0)[2][0]) == pytest.approx(wanted, rel=1e-4)
        x, _, loss = after(20.0)
        crystal.positions = x[0]
        found = np.abs(fingerprint.create([crystal]) - target).mean()
        assert float(loss[0]) == pytest.approx(found, rel=1e-3)
        assert found < 0.5 * wanted
