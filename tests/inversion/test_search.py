"""The search for one target: how it compares structures, and what must not matter to it."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small
import tensorflow as tf
from ase import Atoms
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from hypothesis import strategies as st
from reference import spectrum
from scipy.spatial.distance import pdist

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion import descent, search
from tfgen.inversion import proposals as _draws
from tfgen.inversion.descent import Goal
from tfgen.inversion.screening import NOISE
from tfgen.inversion.search import Budget, _Population, separation
from tfgen.sampling.initial import random_structures
from tfgen.sampling.moves import relocations
from tfgen.structures.batch import StructureBatch

PURE, ALLOY = np.full(5, 78), np.array([29, 29, 79, 79, 79])
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture
def quick():
    with small.quick_search():
        yield


def goal(**other) -> Goal:
    """The fingerprint of a Pt5 cluster."""
    target = small.fingerprint().create([small.structures()[0]])[0]
    return Goal(
        numbers=PURE,
        target=target,
        scale=np.linspace(0.5, 2.0, 12),
        tolerance=1e-9,
        starts=np.zeros([0, 5, 3]),
        fixed=np.zeros(5, bool),
        cell=np.zeros([3, 3]),
        pbc=np.zeros(3, bool),
        seed=(1, 2),
    )._replace(**other)


def run(goal_: Goal, rounds: int = 2, threads: int = 1, fingerprint: Fingerprint | None = None):
    with ThreadPoolExecutor(threads) as pool:
        return search.search(fingerprint or small.fingerprint(), goal_, Budget(rounds), pool)


@pytest.mark.usefixtures("quick")
class TestSearch:
    def test_does_not_depend_on_the_number_of_threads(self):
        one, two = run(goal()), run(goal(), threads=2)
        np.testing.assert_array_equal(one.positions, two.positions)
        np.testing.assert_array_equal(one.loss, two.loss)
        assert one[2:-1] == two[2:-1]

    def test_says_what_it_did(self):
        calls = []
        with ThreadPoolExecutor(1) as pool:
            found = search.search(
                small.fingerprint(), goal(), Budget(3), pool, lambda: calls.append(1)
            )
        assert len(calls) == found.rounds == 3
        assert found.starts == search.STARTS + 3 * search.CHILDREN
        coarse = found.starts * search.DESCENT[0]
        # Each of four generations shows one or two candidates, and may polish one, more than once.
        least, most = search.WHOLE[0], 2 * search.WHOLE[0] + search.POLISH[0]
        assert coarse + 4 * least <= found.steps <= coarse + 4 * most
        assert found.seconds > 0
        assert not found.repeated

    def test_relocations_of_each_candidate_are_looked_at_once(self):
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(), pool)
            population = searching._first(np.zeros([0, 5, 3]))
            for done in range(len(population.loss)):
                assert population.searched.tolist() == [
                    i < done for i in range(len(population.loss))
                ]
                near = searching._relocated(population)
                stay = np.isclose(near, population.positions[done], atol=1e-12).all(axis=2)
                assert sorted(stay.sum(axis=1)) == [3, 4]
            assert len(searching._relocated(population)) == 0
            assert searching._next(population).searched.any()  # those that live on

    def test_two_atoms_in_wrong_places_go_home_at_once(self, monkeypatch):
        """Pt13: two opposite corners of the icosahedron sit on faces between the others."""
        monkeypatch.setattr(_draws, "PLACES", 40)
        home = Icosahedron("Pt", 2, 3.9).positions
        numbers, radius = np.full(13, 78), covalent_radii[78]
        corners = np.flatnonzero(np.linalg.norm(home, axis=1) > 1.0)
        top = corners[0]
        bottom = corners[np.linalg.norm(home[corners] + home[top], axis=1).argmin()]
        rest = corners[(corners != top) & (corners != bottom)]
        edge = pdist(home[rest]).min()
        faces = [
            home[list(face)].mean(axis=0)
            for face in itertools.combinations(rest, 3)
            if np.allclose(pdist(home[list(face)]), edge, rtol=1e-3)
        ]
        height = np.sqrt((2.0 * radius) ** 2 - edge**2 / 3.0)
        wrong = home.copy()
        far = np.linalg.norm(np.array(faces) - faces[0], axis=1).argmax()
        for atom, face in ((top, faces[0]), (bottom, faces[far])):
            wrong[atom] = face * (1.0 + height / np.linalg.norm(face))
        assert pdist(wrong).min() > 0.9 * 2.0 * radius
        fingerprint = Fingerprint.preset("default")
        drawn = random_structures(numbers, 30, np.random.default_rng(0))
        target, *others = fingerprint.create([Atoms(numbers, positions=x) for x in (home, *drawn)])
        own = goal(
            numbers=numbers, target=target, scale=fingerprint.scale(np.array(others)),
            starts=np.zeros([0, 13, 3]), fixed=np.zeros(13, bool),
        )  # fmt: skip
        monkeypatch.setattr(search, "ONE", 3)
        monkeypatch.setattr(search, "TWO", 2)
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(fingerprint, own, pool)
            searching._renew(_Population.of(wrong[None], np.ones(1)))
            near = searching._relocated(_Population.of(wrong[None], np.ones(1)))
            followed, _ = searching._coarse.descend(near, 60, 0.15)
        moved = (~np.isclose(near, wrong)).any(axis=2).sum(axis=1)
        assert moved.tolist() == [1, 1, 1, 2, 2]
        off = [separation(home, x[None], numbers)[0] for x in followed]
        assert min(off[3:]) < search.SAME < min(off[:3])

    @pytest.mark.parametrize("numbers", [PURE, ALLOY], ids=str)
    @pytest.mark.parametrize("forgiving", [False, True])
    def test_pairs_are_those_of_a_loop(self, numbers, forgiving, monkeypatch):
        monkeypatch.setattr(search, "PAIRS", 40)
        monkeypatch.setattr(search, "FORGIVING", 0.1)
        rng = np.random.default_rng(3)
        parent = np.asarray(random_structures(numbers, 1, rng))[0]
        elements = sorted(set(Atoms(numbers).symbols))
        acsf = ACSF(elements, 7.0, g2_params=[[1.0, r] for r in (2.0, 2.7, 3.4)], g1=False)
        fingerprint = Fingerprint(acsf, ("mean", "std"))
        target = fingerprint.create(
            Atoms(numbers, positions=random_structures(numbers, 1, rng)[0])
        )[0]
        own = goal(numbers=numbers, target=target, scale=np.full(len(target), 0.1))
        one = relocations(parent, numbers, np.arange(5), 6, rng)
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(fingerprint, own, pool)
            measure = lambda e: e  # noqa: E731
            if forgiving:
                searching._renew(_Population.of(parent[None], np.ones(1)))
                measure = searching._forgiving.unforgiven
            found = searching._pairs(parent, one)
            before, *after = measure(searching._coarse.errors(np.array([parent, *one])))
        wanted, known = [], set()
        for i, j in itertools.combinations(range(len(one)), 2):
            a, b = (int((x != parent).any(axis=1).argmax()) for x in (one[i], one[j]))
            both = covalent_radii[numbers[a]] + covalent_radii[numbers[b]]
            if a == b or np.linalg.norm(one[i][a] - one[j][b]) <= 0.82 * both:
                continue
            x = parent.copy()
            x[a], x[b] = one[i][a], one[j][b]
            left = np.sum(np.square(after[i] + after[j] - before, dtype=np.float64))
            wanted.append((left, tuple(np.round(spectrum(x, numbers), 6)), x))
        wanted.sort(key=lambda pair: pair[0])
        unlike = [x for _, kind, x in wanted if not (kind in known or known.add(kind))]
        assert len(found) == 40 < len(unlike)
        spectra = [np.sort(spectrum(x, numbers)) for x in found]
        # Those that are equally good may come in any order.
        best = {tuple(np.round(spectrum(x, numbers), 6)) for x in unlike[:40]}
        assert len({tuple(np.round(s, 6)) for s in spectra}) == 40
        assert {tuple(np.round(spectrum(x, numbers), 6)) for x in found} == best

    def test_relocations_leave_fixed_atoms_and_cells_alone(self, monkeypatch):
        monkeypatch.setattr(search, "ONE", 40)
        start = small.structures()[0].positions[None]
        population = _Population.of(start, np.ones(1))
        fixed = np.array([True, False, True, False, False])
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(starts=start, fixed=fixed), pool)
            near = searching._relocated(population)
            np.testing.assert_array_equal(near[:, fixed], np.repeat(start, len(near), 0)[:, fixed])
            assert (near != start).any(axis=2).any(axis=0).tolist() == (~fixed).tolist()
            cell = goal(cell=9.0 * np.eye(3), pbc=np.ones(3, bool))
            population.searched[:] = False
            assert not len(search._Search(small.fingerprint(), cell, pool)._relocated(population))

    def test_what_looks_best_is_followed(self, monkeypatch):
        """Relocations of one atom of the best candidate, of two, and moves of any."""
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(), pool)
            population = searching._first(np.zeros([0, 5, 3]))
            looked, followed = [], []
            of = searching._coarse.of
            monkeypatch.setattr(searching._coarse, "of", lambda x: looked.append(x) or of(x))
            descended = searching._descended
            monkeypatch.setattr(
                searching, "_descended", lambda x: followed.append(x) or descended(x)
            )
            searching._next(population)
            wanted = [
                x[np.argsort(of(x))[:most]] for x, most in zip(looked, (1, 1, 2), strict=True)
            ]
        np.testing.assert_array_equal(followed[0], np.concatenate(wanted))

    def test_weeding_forgives_displacements(self, monkeypatch):
        """Once the features outnumber the coordinates: the shaken stay, not what looks alike."""
        x = np.array([s.positions for s in small.structures()[:2]])
        rng = np.random.default_rng(0)
        shaken = x[0] + search.RATTLE * rng.normal(size=[40, 5, 3])
        apart = relocations(x[0], PURE, np.arange(5), 20, rng)
        with ThreadPoolExecutor(1) as pool:
            own = goal(
                scale=np.full(12, 0.1), target=small.fingerprint().create(small.structures()[0])[0]
            )
            searching = search._Search(small.fingerprint(), own, pool)
            population = _Population.of(x, np.zeros(2))
            searching._renew(population)
            assert searching._forgiving is None  # 8 features of pairs, 15 coordinates
            monkeypatch.setattr(search, "FORGIVING", 0.5)
            searching._renew(population)
            every = np.concatenate([apart, shaken])
            errors = searching._coarse.errors(every)
            kept = searching._weeded(every, 40)
        assert np.median(np.abs(errors[-40:]).mean(axis=1)) > 2 * NOISE
        assert np.median(searching._forgiving(errors[-40:])) < NOISE
        assert np.median(searching._forgiving(errors[:-40])) > 2 * NOISE
        assert np.isin(kept, shaken).all(axis=(1, 2)).sum() >= 36

    def test_what_it_forgives_is_known_anew(self, monkeypatch):
        """With each population, and every few rounds."""
        monkeypatch.setattr(search, "FORGIVING", 0.5)
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(), pool)
            known = []
            for _ in range(2):
                population = searching._first(np.zeros([0, 5, 3]))
                for _ in range(search.RENEWED + 1):
                    population = searching._next(population)
                    known.append(searching._forgiving)
                    searching._rounds += 1
        turns = [a is not b for a, b in itertools.pairwise(known)]
        n = search.RENEWED
        assert np.flatnonzero(turns).tolist() == [n - 1, n, 2 * n]

    def test_some_starts_are_sheets_and_rods(self, monkeypatch):
        monkeypatch.setattr(search, "STARTS", 12)
        followed = []
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(), pool)
            x = searching._draws.pressed(searching._draws.drawn(60))
            pairs = np.array([pdist(y) for y in x])
            assert pairs.min() > 0.95 * 2 * covalent_radii[78] - 1e-9
            extents = np.linalg.svd(x - x.mean(axis=1, keepdims=True), compute_uv=False)
            flat, thin = extents[:, 2] < 0.1 * extents[:, 0], extents[:, 1] < 0.1 * extents[:, 0]
            assert (flat & ~thin).any()
            assert thin.any()
            monkeypatch.setattr(searching._draws, "pressed", lambda x: np.full_like(x, 7.0))
            descended = searching._descended
            monkeypatch.setattr(
                searching, "_descended", lambda x: followed.append(x) or descended(x)
            )
            searching._first(np.zeros([0, 5, 3]))
            flat_ones = (followed[0] == 7.0).all(axis=(1, 2))
            assert flat_ones.tolist() == [False] * 6 + [True] * 6  # eight of 48
            start = small.structures()[0].positions[None]
            held = goal(starts=start, fixed=np.array([True, False, False, False, False]))
            searching = search._Search(small.fingerprint(), held, pool)
            monkeypatch.setattr(searching._draws, "pressed", lambda x: np.full_like(x, np.nan))
            assert np.isfinite(searching._first(start).positions).all()

    def test_rattles_that_break_a_structure_teach_nothing(self, monkeypatch):
        monkeypatch.setattr(search, "FORGIVING", 0.5)
        x = np.array([s.positions for s in small.structures()[:2]])
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(), pool)
            errors = searching._coarse.errors

            def broken(positions):
                found = errors(positions)
                found[3], found[4] = np.nan, np.inf
                return found

            monkeypatch.setattr(searching._coarse, "errors", broken)
            searching._renew(_Population.of(x, np.zeros(2)))
            assert searching._forgiving is not None
            assert np.isfinite(searching._forgiving(errors(x))).all()
            monkeypatch.setattr(searching._coarse, "errors", lambda x: np.nan * errors(x))
            searching._renew(_Population.of(x, np.zeros(2)))
            assert searching._forgiving is None

    def test_candidates_are_distinct_and_sorted(self):
        found = run(goal(), rounds=4)
        assert (np.diff(found.loss) >= 0).all()
        for k in range(len(found.positions) - 1):
            between = separation(found.positions[k], found.positions[k + 1 :], PURE)
            assert (between >= search.SAME).all()

    def test_loss_is_that_of_the_positions(self):
        found = run(goal())
        values = small.fingerprint()(
            StructureBatch.of_clusters(
                tf.constant(found.positions), tf.constant([PURE] * len(found.loss), tf.int32)
            )
        )
        wanted = np.abs(values - goal().target) / goal().scale
        np.testing.assert_allclose(found.loss, wanted.mean(axis=1), atol=1e-5)

    @pytest.mark.parametrize("more", [0, 1, 113])
    def test_losses_of_any_number_of_structures(self, more):
        """Some in pieces of one descent, some in looks of many pieces."""
        rng = np.random.default_rng(more)
        with ThreadPoolExecutor(2) as pool:
            losses = descent.Loss(small.fingerprint(), goal(), slice(None), pool)
            x = 1.5 * rng.normal(size=[losses._piece() + more, 5, 3])
            x[-1, 0, 0] = np.nan
            found = losses.of(x)
        whole = small.fingerprint().create([Atoms(PURE, positions=p) for p in x[:-1]])
        wanted = (np.abs(whole - goal().target) / goal().scale).mean(axis=1)
        np.testing.assert_allclose(found[:-1], wanted, rtol=1e-4, atol=1e-5)
        assert found[-1] == np.inf

    def test_completes_what_has_kinks(self):
        """Largest and smallest values alone: neither descents nor Gauss-Newton get there."""
        fingerprint = Fingerprint(small.fingerprint().descriptor, ("max", "min"))
        start = small.structures()[0].positions
        target = fingerprint.create([small.structures()[0]])[0]
        own = goal(target=target, scale=np.ones(len(target)), tolerance=1e-2)
        near = start + 0.02 * np.random.default_rng(3).normal(size=start.shape)
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(fingerprint, own, pool)
            candidate = near, searching._error(near)
            late = searching._ended(candidate, 6, lambda: True)
            assert late is candidate
            ended = searching._ended(candidate, 6, lambda: False)
        assert searching._error(ended[0]) < 0.1 * candidate[1]
        assert ended[1] < candidate[1]

    @pytest.mark.parametrize(("poolings", "reached"), [(["max", "min"], True), (["mean"], False)])
    def test_what_may_have_a_fingerprint_is_completed_in_turns_if_there_are_kinks(
        self, poolings, reached, monkeypatch
    ):
        """Before it is dropped for a loss that the first descent has not brought down."""
        monkeypatch.setattr(search, "refine", lambda *these: these[1])  # of no help
        fingerprint = Fingerprint(small.fingerprint().descriptor, poolings)
        start = small.structures()[0].positions
        target = fingerprint.create([small.structures()[0]])[0]
        own = goal(target=target, scale=np.ones(len(target)), tolerance=2e-3)
        near = start + 0.02 * np.random.default_rng(3).normal(size=start.shape)
        turns = []
        real = search._Search._ended
        monkeypatch.setattr(
            search._Search, "_ended", lambda *these: (turns.append(these[2]), real(*these))[1]
        )
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(fingerprint, own, pool)
            population = _Population.of(near[None], np.zeros(1))
            searching._hand_on(population, lambda: False)
        assert turns == ([search.ATTEMPTS] if reached else [])
        assert searching._reached() or not reached

    @pytest.mark.parametrize("kinked", [True, False])
    def test_turns_go_on_in_vain_if_there_are_kinks(self, kinked, monkeypatch):
        """From the best and from the last in turn; without kinks the first in vain is the last."""
        begun = []

        def follow(_, positions, schedule):
            begun.append((positions[0, 0], schedule[1]))
            return np.full([5, 3], 10.0 + len(begun)), 0.2

        monkeypatch.setattr(search._Search, "_follow", follow)
        monkeypatch.setattr(search._Search, "_refined", lambda _, positions: (positions, 0.3))
        monkeypatch.setattr(search._Search, "_error", lambda *_: 1.0)
        with ThreadPoolExecutor(1) as pool:
            searching = search._Search(small.fingerprint(), goal(), pool)
            searching._kinked = kinked
            candidate = np.zeros([5, 3]), 0.1
            assert searching._ended(candidate, 12, lambda: False) is candidate
        fine, wide, finest = search.RATES
        every = [(0, fine), (11, wide), (0, finest), (13, fine), (0, wide), (15, finest)]
        assert begun == (every if kinked else every[:1])

    def test_a_start_that_nearly_fits_where_gradients_fail(self):
        fingerprint = Fingerprint(NeverDifferentiable(["Pt"], 5.0, 1.0), ("mean", "std"))
        start = small.structures()[0].positions
        target = fingerprint.create([small.structures()[0]])[0]
        own = goal(target=target + 1e-3, scale=np.ones(len(target)), tolerance=2e-3)
        found = run(own._replace(starts=start[None]), fingerprint=fingerprint)
        np.testing.assert_allclose(found.positions[0], start, atol=1e-6)

    def test_more_starts_than_it_descends(self):
        starts = np.array([s.positions for s in small.structures()[1:30]])
        found = run(goal(starts=starts), rounds=0)
        assert found.starts == len(starts) > search.STARTS

    def test_gradients_that_fail_somewhere(self):
        """There a candidate is lost; the others find their way."""
        fingerprint = Fingerprint(Fails(["Pt"], 5.0, 1.0), ("mean", "std"))
        target = fingerprint.create([small.structures()[0]])[0]
        assert np.isfinite(target).all()
        found = run(goal(target=target, scale=np.ones(len(target))), fingerprint=fingerprint)
        assert np.isfinite(found.positions).all()
        assert np.isfinite(found.loss).all()
        near = min(np.linalg.norm(x[0] - x[1]) for x in found.positions)
        assert near > Fails.NEAREST

    def test_gradients_that_fail_everywhere(self):
        """Then nothing is found, but it ends."""
        fingerprint = Fingerprint(NeverDifferentiable(["Pt"], 5.0, 1.0), ("mean", "std"))
        target = fingerprint.create([small.structures()[0]])[0]
        assert np.isfinite(target).all()
        found = run(goal(target=target, scale=np.ones(len(target))), fingerprint=fingerprint)
        assert found.rounds == 2
        assert np.isfinite(found.positions).all()
        assert len(found.loss) == 1

    def test_cells_with_open_directions_are_filled_where_the_start_lies(self):
        slab = np.array([[0, 0, 30.0], [2, 2, 30], [0, 2, 32], [2, 0, 32], [1, 1, 34]])
        cell = np.diag([4.0, 4.0, 0.0])
        own = goal(cell=cell, pbc=np.array([True, True, False]), starts=slab[None])
        with ThreadPoolExecutor(1) as pool:
            drawn = search._Search(small.fingerprint(), own, pool)._draws.drawn(200)
        assert drawn.shape == (200, 5, 3)
        assert (drawn[..., :2] >= 0).all()
        assert (drawn[..., :2] <= 4).all()
        assert drawn[..., 2].min() == pytest.approx(30, abs=0.1)
        assert drawn[..., 2].max() == pytest.approx(34, abs=0.1)

    def test_moves_of_fixed_atoms(self):
        """They stay; the others go, and come to lie at distances of bonds."""
        start = np.array([s.positions for s in small.structures()[:1]])
        fixed = np.array([True, False, True, False, False])
        with ThreadPoolExecutor(1) as pool:
            own = search._Search(small.fingerprint(), goal(starts=start, fixed=fixed), pool)
            moved = own._draws.moved(np.repeat(start, 300, axis=0))
        np.testing.assert_array_equal(moved[:, fixed], np.repeat(start, 300, 0)[:, fixed])
        changed = (moved != start).any(axis=2)
        assert changed[:, ~fixed].any(axis=0).all()
        alone = np.flatnonzero(changed.sum(axis=1) == 1)
        assert len(alone) > 50  # relocated; rattles move all
        for row in alone[:20]:
            (one,) = np.flatnonzero(changed[row])
            hosts = np.concatenate([np.delete(moved[row], one, axis=0), start[0][[one]]])
            distances = np.linalg.norm(hosts - moved[row, one], axis=1)
            assert np.abs(distances - 2 * covalent_radii[78]).min() < 1e-9


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
