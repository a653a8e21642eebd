"""Candidates: known in advance, on target, distinct, new; and rough inversion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
from ase import Atoms

from tfgen.generation import proposals as module
from tfgen.generation.generate import generate
from tfgen.generation.proposals import Candidates, sketch
from tfgen.inversion.reconstruct import CONVERGED
from tfgen.models.neural_potential import fit_nnp
from tfgen.relaxation.relax import relax
from tfgen.structures import similarity
from tfgen.structures.properties import radius_of_gyration
from tfgen.targets import Target

ENERGY, SIZE = small.PROPERTIES
PT6 = np.full(6, 78)


def targets_of(wanted, tolerance):
    return [Target.of(name, value, tolerance[name]) for name, value in wanted.items()]


@pytest.fixture(scope="module")
def model():
    """The small model with an NNP: of EMT, roughly."""

    def evaluate(structures):
        found = small.potential().compute(structures)
        return found["energy"], found["forces"]

    fingerprint = small.fingerprint()
    nnp, _ = fit_nnp(fingerprint.descriptor, small.structures(), evaluate, epochs=25)
    return dataclasses.replace(small.model(), nnp=nnp)


@pytest.fixture(scope="module")
def target():
    """The energy of one minimum of Pt6, eV/atom."""
    starts = [s for s in small.structures() if len(s) == 6]
    return float(relax(starts[:1], small.potential()).energy[0] / 6)


class TestSketch:
    def test_comes_near_the_targets(self):
        structures = [s for s in small.structures() if len(s) == 6][:3]
        fingerprint, scale = small.fingerprint(), small.model().scale
        targets = fingerprint.create(structures)
        done = []
        found = sketch(fingerprint, targets, PT6, scale, 0, done.append)
        assert done == [3]
        near = np.abs(fingerprint.create(found) - targets) / scale
        other = np.abs(np.roll(targets, 1, axis=0) - targets) / scale
        assert near.mean() < 0.3 * other.mean()
        again = sketch(fingerprint, targets, PT6, scale, 0)
        for a, b in zip(found, again, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)

    def test_with_an_energy_to_aim_at(self, model):
        fingerprint = model.fingerprint
        potential = module._potential(model)
        targets = fingerprint.create([s for s in small.structures() if len(s) == 6][:4])
        asked = np.array([1.5, 1.7, 1.9, np.nan])
        found = sketch(fingerprint, targets, PT6, model.scale, 0, aim=(potential, asked))
        energy = potential.compute(found)["energy"] / 6
        free = sketch(fingerprint, targets, PT6, model.scale, 0)
        without = potential.compute(free)["energy"] / 6
        assert np.abs(energy - asked)[:3].max() < 0.02
        assert np.abs(without - asked)[:3].max() > 0.05


class TestPool:
    def test_candidates_are_minima_on_target_and_distinct(self, model, target):
        pool = Candidates(model, PT6, [Target.of(ENERGY, target, 0.2)], 5, seed=1)
        taken = pool.take(3) + pool.take(2)
        potential = module._potential(model)
        structures = [c.structure for c in taken]
        still = relax(structures, potential, fmax=module.FMAX, max_steps=50)
        for candidate, energy, steps in zip(taken, still.energy, still.steps, strict=True):
            assert candidate.status == CONVERGED
            assert steps == 0
            assert candidate.predicted[ENERGY] == pytest.approx(energy / 6, abs=1e-6)
            size = radius_of_gyration([candidate.structure])[0]
            assert candidate.predicted[SIZE] == pytest.approx(size)
            error = model.fingerprint.create(candidate.structure) - candidate.drawn
            loss = np.abs(error / model.scale).mean()
            assert candidate.loss == pytest.approx(loss, rel=1e-6)
            assert candidate.miss == pool.targets[0].miss(candidate.predicted[ENERGY])
        on_target = [c for c in taken if c.miss <= module.MARGIN]
        assert len(on_target) >= 2
        assert taken[0].miss <= module.MARGIN
        first = similarity.duplicates(structures[:2], module.SAME)
        np.testing.assert_array_equal(first, [0, 1])
        assert pool.proposed >= 5

    def test_two_targets_at_once(self, model):
        """A value and a range: first come structures that have both, where there are any."""
        start = next(s for s in small.structures() if len(s) == 6)
        minimum = relax([start], module._potential(model), fmax=module.FMAX)
        energy, size = minimum.energy[0] / 6, radius_of_gyration(minimum.structures)[0]
        tolerance = {ENERGY: 0.1, SIZE: 0.02}
        targets = {ENERGY: (energy - 0.1, energy + 0.1), SIZE: size}
        taken = Candidates(model, PT6, targets_of(targets, tolerance), 3, seed=1).take(3)
        best = taken[0]
        assert energy - 0.16 <= best.predicted[ENERGY] <= energy + 0.16
        assert abs(best.predicted[SIZE] - size) <= module.MARGIN * 0.02
        assert [c.miss for c in taken] == sorted(c.miss for c in taken)
        # Whoever is not asked for the size has others, too.
        free = Candidates(model, PT6, [Target.of(ENERGY, targets[ENERGY], 0.1)], 3, seed=1).take(8)
        assert max(abs(c.predicted[SIZE] - size) for c in free) > 0.02

    def test_order(self, model, monkeypatch):
        """Sound, on target, new and unlike those before; the rest only when these run out."""
        line = [Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2 + 0.5 * i]]) for i in range(5)]

        def candidate(i, **changes):
            return module.Candidate(line[i], np.zeros(1), {}, 0.0, CONVERGED, **changes)

        waiting = [
            candidate(0, miss=3.0),
            candidate(1, miss=0.5),
            candidate(2, known=True, copy=True),
            candidate(1, miss=0.4),
            dataclasses.replace(candidate(3), status="no"),
            candidate(4, miss=0.2),
        ]
        pool = Candidates(model, np.full(2, 78), [], 2, seed=0, _waiting=waiting)
        monkeypatch.setattr(Candidates, "_propose", lambda *_: pytest.fail("enough"))
        order, promising, possible = pool._ranked()
        assert promising == possible == 2
        assert order[:2] == [5, 3]
        assert set(order[2:4]) == {1, 2}  # a copy and a known one, both on target
        assert order[4:] == [0, 4]
        assert pool.take(1)[0] is waiting[5]
        pool._taken.append(line[1])
        assert pool._ranked()[1:] == (0, 0)
        # Next to one of those taken, or to a known one: perhaps the same.
        near = Atoms("Pt2", positions=[[0, 0, 0], [0, 0, 2.58]])
        pool._waiting += [
            dataclasses.replace(candidate(1, miss=0.4), structure=near),
            candidate(3, known=True, miss=0.4),
        ]
        order, promising, possible = pool._ranked()
        assert (promising, possible) == (0, 2)
        assert set(order[:2]) == {5, 6}

    def test_training_structures_are_recognised(self, model, target):
        """Of those proposed, with the minima found before as a library."""
        arguments = (PT6, [Target.of(ENERGY, target, 0.2)], 3)
        first = Candidates(model, *arguments, seed=1)
        found = first.take(3)
        assert not any(c.known for c in found)
        library = tuple(c.structure for c in found)
        other = [Atoms("Pt5", positions=found[0].structure.positions[:5])]
        pool = Candidates(
            dataclasses.replace(model, library=(*library, *other)), *arguments, seed=1
        )
        assert len(pool.library) == 3
        pool._propose(8)
        assert any(c.known for c in pool._waiting)

    def test_on_a_slope_the_energy_is_that_asked_for(self, model):
        pool = Candidates(model, PT6, [Target.of(ENERGY, 1.9, 0.02)], 3, seed=1, slide=False)
        for candidate in pool.take(3):
            assert candidate.predicted[ENERGY] == pytest.approx(1.9, abs=0.02)


@pytest.mark.filterwarnings("ignore:target energy_per_atom")
class TestGeneration:
    def test_record_and_choice(self, model, target):
        asked = {ENERGY: (target - 0.02, target + 0.02)}
        made = generate(model, "Pt6", asked, 3, potential=small.potential(), candidates=4, seed=2)
        for atoms in made:
            info = atoms.info
            assert set(info["predicted"]) == {ENERGY, SIZE}
            assert 1 <= info["candidates"] <= 4
            hit = target - 0.02 <= info["relaxed"][ENERGY] <= target + 0.02
            assert hit or not info["verified"]
            if not info["verified"] and not hit:
                assert info["candidates"] == 4  # nothing was left untried
        accepted = [a for a in made if a.info["verified"]]
        assert accepted
        first = similarity.duplicates(accepted)
        np.testing.assert_array_equal(first, np.arange(len(accepted)))

    def test_more_candidates_hit_no_less(self, model, target):
        hits = []
        for count in (1, 4):
            made = generate(
                model, "Pt6", {ENERGY: target}, 3,
                potential=small.potential(), candidates=count, seed=2,
            )  # fmt: skip
            hits.append(sum(atoms.info["verified"] for atoms in made))
        assert hits[0] <= hits[1]

    def test_choosing_needs_something_to_choose_by(self, model):
        with pytest.raises(ValueError, match="candidates is 2, but nothing computes energy_per"):
            generate(model, "Pt6", {ENERGY: 1.5}, 1, potential=None, relax=False, candidates=2)
        with pytest.raises(ValueError, match="candidates is 0; at least 1"):
            generate(model, "Pt6", {ENERGY: 1.5}, 1, candidates=0)
