"""Proposals with an NNP: minima, on target, distinct, new; and what `generate` makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import small
from ase import Atoms

from tfgen.generation.generate import generate
from tfgen.generation.proposers import FingerprintSampler, make_proposer, training_structures
from tfgen.generation.request import Request
from tfgen.generation.settings import GenerationSettings, ProposalSettings
from tfgen.models.cvae import CVAE
from tfgen.models.model import Model
from tfgen.models.nnp_fitting import fit_nnp
from tfgen.models.settings import NNPSettings
from tfgen.relaxation.relax import relax
from tfgen.structures.properties import radius_of_gyration
from tfgen.structures.similarity import equality
from tfgen.structures.status import Status
from tfgen.structures.validity import ValidityThresholds
from tfgen.targets import Target

ENERGY, SIZE = small.PROPERTIES
PT6 = np.full(6, 78)
SETTINGS = GenerationSettings()
DEFAULTS = SETTINGS.proposals


@pytest.fixture(scope="module")
def model():
    """The small model with an NNP: of EMT, roughly."""

    def evaluate(structures):
        found = small.potential().compute(structures)
        return found["energy"], found["forces"]

    fingerprint = small.fingerprint()
    settings = NNPSettings(epochs=25)
    nnp, _ = fit_nnp(fingerprint.descriptor, small.structures(), evaluate, settings=settings)
    return dataclasses.replace(small.model(), nnp=nnp)


@pytest.fixture(scope="module")
def target():
    """The energy of one minimum of Pt6, eV/atom."""
    starts = [s for s in small.structures() if len(s) == 6]
    return float(relax(starts[:1], small.potential()).energy[0] / 6)


def proposer(model, *targets, count=3, minima=True, settings=SETTINGS):
    request = Request(
        numbers=PT6,
        targets=targets,
        count=count,
        seed=1,
        potential=None,
        relaxed_by=None,
        minima=minima,
        evaluated_by={ENERGY: "surrogate", SIZE: "geometry"},
        candidates=1,
    )
    return make_proposer(model, request, settings)


class TestScreening:
    def test_candidates_are_minima_on_target_and_distinct(self, model, target):
        asked = Target.of(ENERGY, target, 0.2)
        made = proposer(model, asked, count=5)
        taken = made.take(3) + made.take(2)
        structures = [c.structure for c in taken]
        still = relax(structures, model.neural_potential, fmax=DEFAULTS.fmax, max_steps=50)
        for candidate, energy, steps in zip(taken, still.energy, still.steps, strict=True):
            assert candidate.status == Status.CONVERGED
            assert steps == 0
            assert candidate.predicted[ENERGY] == pytest.approx(energy / 6, abs=1e-6)
            size = radius_of_gyration([candidate.structure])[0]
            assert candidate.predicted[SIZE] == pytest.approx(size)
            error = model.fingerprint.create(candidate.structure) - candidate.fingerprint
            loss = np.abs(error / model.scale).mean()
            assert candidate.loss == pytest.approx(loss, rel=1e-6)
            assert candidate.miss == asked.miss(candidate.predicted[ENERGY])
        on_target = [c for c in taken if c.miss <= DEFAULTS.promising_miss]
        assert len(on_target) >= 2
        assert taken[0] is on_target[0]
        first = equality.duplicates(structures[:2], DEFAULTS.alike_tolerance)
        np.testing.assert_array_equal(first, [0, 1])
        assert made.proposed >= 5

    def test_two_targets_at_once(self, model):
        """A value and a range: first come structures that have both, where there are any."""
        start = next(s for s in small.structures() if len(s) == 6)
        minimum = relax([start], model.neural_potential, fmax=DEFAULTS.fmax)
        energy, size = minimum.energy[0] / 6, radius_of_gyration(minimum.structures)[0]
        targets = (
            Target.of(ENERGY, (energy - 0.1, energy + 0.1), 0.1),
            Target.of(SIZE, size, 0.03),
        )
        taken = proposer(model, *targets).take(3)
        best = taken[0]
        assert energy - 0.16 <= best.predicted[ENERGY] <= energy + 0.16
        assert abs(best.predicted[SIZE] - size) <= DEFAULTS.promising_miss * 0.03
        assert [c.miss for c in taken] == sorted(c.miss for c in taken)
        # A model that is not asked for the size also has others.
        free = proposer(model, targets[0]).take(8)
        assert max(abs(c.predicted[SIZE] - size) for c in free) > 0.02

    def test_each_is_taken_once(self, model, target):
        made = proposer(model, Target.of(ENERGY, target, 0.2))
        made.propose(6)
        everyone = [id(p) for p in made.waiting]
        taken = [id(p) for _ in range(2) for p in made.take(3)]
        assert len(set(taken)) == 6
        assert set(taken) <= set(everyone) | set(taken)
        assert len(made.taken) == 6

    def test_training_structures_are_recognised(self, model, target):
        """Among proposals, with the minima found before as the training structures."""
        asked = Target.of(ENERGY, target, 0.2)
        found = proposer(model, asked).take(3)
        assert not any(c.alike for c in found)
        known = tuple(c.structure for c in found)
        other = Atoms("Pt5", positions=found[0].structure.positions[:5])
        taught = dataclasses.replace(model, training_structures=(*known, other))
        assert training_structures(taught, PT6) == list(known)
        made = proposer(taught, asked)
        made.propose(8)
        assert any(p.alike for p in made.waiting)

    def test_a_request_comes_to_an_end(self, model):
        """Nothing has the energy asked for: as many proposals as are allowed, and no more."""
        few = ProposalSettings(per_candidate=2, max_per_structure=4)
        made = proposer(model, Target.of(ENERGY, 40.0, 0.01), settings=GenerationSettings(
            proposals=few))  # fmt: skip
        assert made.take_promising(3) == []
        for proposal in made.waiting:
            assert bool(proposal.status_detail) == (proposal.status == Status.NOT_VALID)
        assert made.proposed == 12
        assert len(made.take(1)) == 1  # the best there is
        assert made.proposed == 12

    @pytest.mark.parametrize(("rate", "bound"), [(0.5, 2.0), (0.25, 2.0), (0.5, 0.1), (0.0, 2.0)])
    def test_later_samples_make_up_for_the_energy_lost(self, model, target, rate, bound):
        settings = GenerationSettings(
            proposals=ProposalSettings(shift_rate=rate, max_shift=bound)
        )  # fmt: skip
        made = proposer(model, Target.of(ENERGY, target + 0.1, 0.2), settings=settings)
        made.propose(6)
        energies = [p.predicted[ENERGY] for p in made.waiting if p.status == Status.CONVERGED]
        spread = np.sqrt(model.covariance[0, 0])
        shift = rate * (target + 0.1 - np.median(energies))
        expected = np.clip(shift, -bound * spread, bound * spread)
        assert made._sampler.energy_shift == pytest.approx(expected, rel=1e-6)
        asked = []
        sample = FingerprintSampler(model, made._request)
        sample.energy_shift = expected
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Model, "condition_vectors", lambda _, wanted, __: asked.append(wanted))
            patch.setattr(Model, "sample", lambda *_: None)
            sample.sample(4)
        wanted = target + 0.1 + expected * np.array([1, 0, 1, 0])
        np.testing.assert_allclose(asked[0][:, 0], wanted)

    def test_without_minima_the_energy_is_that_asked_for(self, model):
        for candidate in proposer(model, Target.of(ENERGY, 1.9, 0.02), minima=False).take(3):
            assert candidate.predicted[ENERGY] == pytest.approx(1.9, abs=0.02)


@pytest.mark.filterwarnings("ignore:target energy_per_atom")
class TestGeneration:
    @staticmethod
    def made(model, asked, candidates):
        settings = dataclasses.replace(SETTINGS, candidates=candidates)
        return generate(
            model, "Pt6", asked, 3, potential=small.potential(), seed=2, settings=settings
        )

    def test_record_and_choice(self, model, target):
        made = self.made(model, {ENERGY: (target - 0.02, target + 0.02)}, 4)
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
        first = equality.duplicates(accepted)
        np.testing.assert_array_equal(first, np.arange(len(accepted)))

    def test_more_candidates_hit_no_less(self, model, target):
        hits = [
            sum(atoms.info["verified"] for atoms in self.made(model, {ENERGY: target}, count))
            for count in (1, 4)
        ]
        assert hits[0] <= hits[1]

    def test_the_tolerance_says_what_is_a_hit(self, model, target):
        asked = {ENERGY: target - 0.03}
        strict = self.made(model, asked, 1)
        settings = dataclasses.replace(SETTINGS, candidates=1)
        lax = generate(
            model, "Pt6", asked, 3, potential=small.potential(), seed=2, settings=settings,
            tolerance={ENERGY: 1.0},
        )  # fmt: skip
        assert all(abs(a.info["relaxed"][ENERGY] - target + 0.03) <= 0.01
                   for a in strict if a.info["verified"])  # fmt: skip
        assert lax[0].info["verified"]
        with pytest.raises(ValueError, match="tolerance names 'hue'; the targets are energy_per_"):
            generate(model, "Pt6", asked, 1, tolerance={"hue": 1.0})
        with pytest.raises(ValueError, match="tolerance of energy_per_atom is -1; a number above"):
            generate(model, "Pt6", asked, 1, tolerance={ENERGY: -1})


def test_fingerprints_that_are_not_finite_are_reached_by_nothing(model):
    """Structures made for them may be valid, but for a fingerprint that is NaN none converges."""
    ours = proposer(model, Target.of(ENERGY, 1.5, 0.01))
    structures = [s for s in small.structures() if len(s) == 6][:3]
    samples = ours._sampler.sample(3)
    samples.fingerprints[1, 4] = np.nan
    samples.fingerprints[2, 4] = np.inf
    found = ours._assess(structures, np.ones(3), np.ones(3, bool), samples)
    assert [p.status for p in found] == [
        Status.CONVERGED, Status.NO_FINGERPRINT, Status.NO_FINGERPRINT,
    ]  # fmt: skip


@pytest.mark.parametrize("targets", [{ENERGY: 1.5, SIZE: 2.0}, {SIZE: 2.0}])
def test_where_no_proposal_is_valid_all_come_back_and_say_so(model, targets):
    if ENERGY not in targets:  # a model that knows the size only
        config = {**small.model().cvae.get_config(), "properties": 1, "conditions": 2}
        cvae = CVAE.from_config(config)
        cvae.build()
        model = dataclasses.replace(
            model, cvae=cvae, conditions=model.conditions[1:], mean=model.mean[1:],
            covariance=model.covariance[1:, 1:],
        )  # fmt: skip
    broken = dataclasses.replace(model)
    broken.__dict__["validity_thresholds"] = ValidityThresholds(5.0, 6.0, 1.0)
    for potential in (small.potential(), None):
        generated = generate(
            broken, "Pt6", targets, 2, potential=potential,
            settings=GenerationSettings(proposals=small.QUICK_PROPOSALS),
        )  # fmt: skip
        for atoms in generated:
            assert atoms.info["status"] == "no valid structure"
            assert atoms.info.get("verified", False) is False
