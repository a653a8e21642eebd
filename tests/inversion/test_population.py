"""Generations of candidates: what is proposed, what is screened, and what is followed downhill."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small
from ase import Atoms
from ase.cluster import Icosahedron
from ase.data import covalent_radii
from reference import spectrum
from scipy.spatial.distance import pdist

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.inversion.descent import Goal, Objective
from tfgen.inversion.population import Generations, Population, separation
from tfgen.inversion.sampler import Sampler
from tfgen.inversion.settings import Descent, ProposalMoves, SearchSettings
from tfgen.sampling.initial import random_structures
from tfgen.sampling.moves import relocations

PURE, ALLOY = np.full(5, 78), np.array([29, 29, 79, 79, 79])
NONE = np.zeros([0, 5, 3])


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def make(executor):
    """Makes `Generations` for a goal, by the cheap part of a fingerprint."""

    def make_(
        goal: Goal | None = None,
        settings: SearchSettings = small.QUICK,
        fingerprint: Fingerprint | None = None,
    ) -> Generations:
        goal = goal or small.goal()
        part, columns = (fingerprint or small.fingerprint()).cheap_part
        objective = Objective(part, goal, columns, executor, settings)
        rng = np.random.default_rng(goal.seed)
        return Generations(goal, objective, Sampler(goal, rng, settings.moves), rng, settings)

    return make_


def quick(**groups: dict) -> SearchSettings:
    """The quick settings, but for some fields of their groups."""
    return dataclasses.replace(
        small.QUICK,
        **{
            name: dataclasses.replace(getattr(small.QUICK, name), **fields)
            for name, fields in groups.items()
        },
    )


WHITENING = quick(screening={"features_per_coordinate": 0.1})


class TestRelocate:
    def test_treats_each_candidate_once(self, make):
        generations = make()
        population = generations.begin(NONE)
        for done in range(len(population.loss)):
            assert population.relocated.tolist() == [i < done for i in range(len(population.loss))]
            near = generations._relocate(population)
            stay = np.isclose(near, population.positions[done], atol=1e-12).all(axis=2)
            assert sorted(stay.sum(axis=1)) == [3, 4]
        assert len(generations._relocate(population)) == 0
        assert generations.advance(population).relocated.any()  # those that live on

    def test_two_atoms_in_wrong_places_go_home_at_once(self, make):
        """Pt13: two opposite corners of the icosahedron sit on faces between the others."""
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
        sampled = random_structures(numbers, 30, np.random.default_rng(0))
        target, *others = fingerprint.create([
            Atoms(numbers, positions=x) for x in (home, *sampled)
        ])  # fmt: skip
        goal = small.goal(
            numbers=numbers, target=target, scale=fingerprint.scale(np.array(others)),
            initial=np.zeros([0, 13, 3]), fixed=np.zeros(13, bool),
        )  # fmt: skip
        moves = ProposalMoves(children=6, single_relocations=3, pair_relocations=2, places=40)
        settings = SearchSettings(moves=moves, jit_compile=False)
        generations = make(goal, settings, fingerprint)
        generations._update_screening(Population.of(wrong[None], np.ones(1)))
        near = generations._relocate(Population.of(wrong[None], np.ones(1)))
        followed, _ = generations._objective.descend(near, Descent(steps=60, step_length=0.15))
        moved = (~np.isclose(near, wrong)).any(axis=2).sum(axis=1)
        assert moved.tolist() == [1, 1, 1, 2, 2]
        off = [separation(home, x[None], numbers)[0] for x in followed]
        assert min(off[3:]) < settings.population.distinct_distance < min(off[:3])

    @pytest.mark.parametrize("numbers", [PURE, ALLOY], ids=str)
    @pytest.mark.parametrize("whitened", [False, True])
    def test_pairs_are_those_of_a_loop(self, numbers, whitened, make):
        rng = np.random.default_rng(3)
        parent = np.asarray(random_structures(numbers, 1, rng))[0]
        elements = sorted(set(Atoms(numbers).symbols))
        acsf = ACSF(
            elements,
            7.0,
            g2_params=[[1.0, r] for r in (2.0, 2.7, 3.4)],
            g5_params=[[0.05, 1, 1]],
            g1=False,
        )
        fingerprint = Fingerprint(acsf, ("mean", "std"))
        other = Atoms(numbers, positions=random_structures(numbers, 1, rng)[0])
        target = fingerprint.create(other)[0]
        goal = small.goal(numbers=numbers, target=target, scale=np.full(len(target), 0.1))
        single = relocations(parent, numbers, np.arange(5), 6, rng)
        settings = quick(moves={"max_pairs": 40}, screening={"features_per_coordinate": 0.1})
        generations = make(goal, settings, fingerprint)
        measure = lambda e: e  # noqa: E731
        if whitened:
            generations._update_screening(Population.of(parent[None], np.ones(1)))
            measure = generations._whitened.whiten
        found = generations._combine(parent, single)
        before, *after = measure(generations._objective.errors(np.array([parent, *single])))
        wanted, known = [], set()
        for i, j in itertools.combinations(range(len(single)), 2):
            a, b = (int((x != parent).any(axis=1).argmax()) for x in (single[i], single[j]))
            both = covalent_radii[numbers[a]] + covalent_radii[numbers[b]]
            if a == b or np.linalg.norm(single[i][a] - single[j][b]) <= 0.82 * both:
                continue
            x = parent.copy()
            x[a], x[b] = single[i][a], single[j][b]
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

    def test_leaves_fixed_atoms_and_cells_alone(self, make):
        start = small.structures()[0].positions[None]
        population = Population.of(start, np.ones(1))
        fixed = np.array([True, False, True, False, False])
        settings = quick(moves={"children": 42, "single_relocations": 40})
        near = make(small.goal(initial=start, fixed=fixed), settings)._relocate(population)
        np.testing.assert_array_equal(near[:, fixed], np.repeat(start, len(near), 0)[:, fixed])
        assert (near != start).any(axis=2).any(axis=0).tolist() == (~fixed).tolist()
        cell = small.goal(cell=9.0 * np.eye(3), pbc=np.ones(3, bool))
        population.relocated[:] = False
        assert not len(make(cell)._relocate(population))


class TestScreening:
    def test_follows_what_looks_best(self, make, monkeypatch):
        """Relocations of one atom of the best candidate, of two, and moves of any."""
        generations = make()
        population = generations.begin(NONE)
        looked, followed = [], []
        losses, descend = generations._objective.losses, generations._descend
        monkeypatch.setattr(
            generations._objective, "losses", lambda x: looked.append(x) or losses(x)
        )
        monkeypatch.setattr(generations, "_descend", lambda x: followed.append(x) or descend(x))
        generations.advance(population)
        wanted = [
            x[np.argsort(losses(x))[:most]] for x, most in zip(looked, (1, 1, 2), strict=True)
        ]
        np.testing.assert_array_equal(followed[0], np.concatenate(wanted))

    def test_displacements_count_little(self, make):
        """Once the features outnumber the coordinates: the rattled stay, not what looks alike."""
        x = np.array([s.positions for s in small.structures()[:2]])
        rng = np.random.default_rng(0)
        rattled = x[0] + 0.1 * rng.normal(size=[40, 5, 3])
        apart = relocations(x[0], PURE, np.arange(5), 20, rng)
        goal = small.goal(scale=np.full(12, 0.1))
        population = Population.of(x, np.zeros(2))
        generations = make(goal, quick(screening={"features_per_coordinate": 2.0}))
        generations._update_screening(population)
        assert generations._whitened is None  # 8 features of pairs, 15 coordinates
        generations = make(goal, quick(screening={"features_per_coordinate": 0.5}))
        generations._update_screening(population)
        every = np.concatenate([apart, rattled])
        errors = generations._objective.errors(every)
        kept = generations._screen(every, 40)
        noise = small.QUICK.screening.noise
        assert np.median(np.abs(errors[-40:]).mean(axis=1)) > 2 * noise
        assert np.median(generations._whitened(errors[-40:])) < noise
        assert np.median(generations._whitened(errors[:-40])) > 2 * noise
        assert np.isin(kept, rattled).all(axis=(1, 2)).sum() >= 36

    def test_displacements_are_sampled_anew(self, make):
        """With each population, and every few rounds."""
        n = 3
        generations = make(settings=quick(screening={"features_per_coordinate": 0.5, "rounds": n}))
        known = []
        for _ in range(2):
            population = generations.begin(NONE)
            for _ in range(n + 1):
                population = generations.advance(population)
                known.append(generations._whitened)
        assert generations.rounds == 2 * (n + 1)
        new = [a is not b for a, b in itertools.pairwise(known)]
        assert np.flatnonzero(new).tolist() == [n - 1, n, 2 * n]

    def test_rattles_that_break_a_structure_are_left_out(self, make, monkeypatch):
        x = np.array([s.positions for s in small.structures()[:2]])
        generations = make(settings=WHITENING)
        errors = generations._objective.errors

        def broken(positions):
            found = errors(positions)
            found[3], found[4] = np.nan, np.inf
            return found

        monkeypatch.setattr(generations._objective, "errors", broken)
        generations._update_screening(Population.of(x, np.zeros(2)))
        assert generations._whitened is not None
        assert np.isfinite(generations._whitened(errors(x))).all()
        monkeypatch.setattr(generations._objective, "errors", lambda x: np.nan * errors(x))
        generations._update_screening(Population.of(x, np.zeros(2)))
        assert generations._whitened is None


class TestBegin:
    def test_some_structures_are_sheets_and_rods(self, make, monkeypatch):
        settings = quick(population={"initial": 12})
        generations = make(settings=settings)
        sampler = generations._sampler
        x = sampler.flatten(sampler.sample(60))
        pairs = np.array([pdist(y) for y in x])
        assert pairs.min() > 0.95 * 2 * covalent_radii[78] - 1e-9
        extents = np.linalg.svd(x - x.mean(axis=1, keepdims=True), compute_uv=False)
        flat, thin = extents[:, 2] < 0.1 * extents[:, 0], extents[:, 1] < 0.1 * extents[:, 0]
        assert (flat & ~thin).any()
        assert thin.any()
        followed, descend = [], generations._descend
        monkeypatch.setattr(sampler, "flatten", lambda x: np.full_like(x, 7.0))
        monkeypatch.setattr(generations, "_descend", lambda x: followed.append(x) or descend(x))
        generations.begin(NONE)
        flat_ones = (followed[0] == 7.0).all(axis=(1, 2))
        assert flat_ones.tolist() == [False] * 6 + [True] * 6  # half of so few

    def test_fixed_atoms_make_no_sheets(self, make, monkeypatch):
        start = small.structures()[0].positions[None]
        goal = small.goal(initial=start, fixed=np.array([True, False, False, False, False]))
        generations = make(goal)
        monkeypatch.setattr(generations._sampler, "flatten", lambda _: pytest.fail("flattened"))
        assert np.isfinite(generations.begin(start).positions).all()
