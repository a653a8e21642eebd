"""Proposals: structures of which as much as possible is known before anything is calculated.

With a neural-network potential (NNP, see `tfgen.models.neural_potential`) a request can look at
many more structures than it lets an expensive method relax: fingerprints are sampled and inverted
coarsely, the structures relax on the NNP, and those become candidates that are predicted to be on
target, that equal no training structure and none of each other. Without one, a candidate is an
inverted fingerprint, and nothing can be said of it in advance.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from ase import Atoms
from tqdm import tqdm

from tfgen.execution.results import ResultStore, array_digest, fingerprint_of
from tfgen.fingerprints.loss import fingerprint_loss, scaled_errors
from tfgen.generation.coarse_inversion import (
    centred_structures,
    invert_coarsely,
    move_to_energies,
)
from tfgen.generation.ranking import Proposal, Ranking, rank
from tfgen.generation.request import Request
from tfgen.generation.settings import GenerationSettings, ProposalSettings
from tfgen.inversion.reconstruct import reconstruct
from tfgen.inversion.result import status_of
from tfgen.models.model import Model
from tfgen.models.neural_potential import NeuralPotential
from tfgen.relaxation.relax import relax
from tfgen.structures.properties import ENERGY_PER_ATOM, GEOMETRIC, compute
from tfgen.structures.similarity import equality
from tfgen.structures.status import Status
from tfgen.targets import largest_miss

__all__ = ["Proposer", "make_proposer", "training_structures"]

# Sets the seeds of proposals apart from others that come from the seed of a request.
_STREAM = 2


class Proposer(Protocol):
    """Makes candidates for a request, each once.

    Attributes:
        proposed: relaxations on the NNP, or inversions without one, so far.
    """

    proposed: int

    def take(self, count: int) -> list[Proposal]:
        """Returns the `count` best candidates, however good that is."""

    def take_promising(self, count: int) -> list[Proposal]:
        """Returns up to `count` candidates, only such as may be on target and new."""


def make_proposer(
    model: Model,
    request: Request,
    settings: GenerationSettings,
    *,
    results: ResultStore | None = None,
    progress: bool = False,
) -> Proposer:
    """Returns what makes the best candidates for the model: it screens, if there is an NNP."""
    sampler = FingerprintSampler(model, request)
    used: dict[str, Any] = {"results": results, "progress": progress}
    if model.neural_potential is None:
        return InvertingProposer(model, request, sampler, settings, **used)
    return ScreeningProposer(model, request, sampler, settings.proposals, **used)


def training_structures(model: Model, numbers: np.ndarray) -> list[Atoms]:
    """Returns the model's training structures of one composition, [atoms]."""
    numbers = np.sort(numbers)
    return [
        atoms
        for atoms in model.training_structures
        if len(atoms) == len(numbers) and (np.sort(atoms.numbers) == numbers).all()
    ]


class Samples(NamedTuple):
    """Fingerprints sampled for a request.

    Attributes:
        fingerprints: [n, features].
        energies: [n], target energies, eV/atom; NaN where the model knows no energy.
        seed: of what is made of them.
    """

    fingerprints: np.ndarray
    energies: np.ndarray
    seed: int


def _key(
    model: Model,
    request: Request,
    samples: Samples,
    settings: GenerationSettings | ProposalSettings,
) -> str:
    """Names what is made of samples by all that it depends on."""
    task = {
        "fingerprint": model.fingerprint.get_config(),
        "networks": model.digest,
        "samples": [array_digest(array) for array in samples[:2]],
        "seed": samples.seed,
        "minima": request.minima,
        "settings": asdict(settings),
    }
    return fingerprint_of(Atoms(request.numbers), task)


class FingerprintSampler:
    """Samples fingerprints for the targets of a request, others in each call.

    Attributes:
        energy_shift: added to the target energy of every other fingerprint, eV/atom.
    """

    def __init__(self, model: Model, request: Request) -> None:
        self._model, self._request = model, request
        self._calls = 0
        stream = np.random.SeedSequence([request.seed, _STREAM])
        self._seed = int(stream.generate_state(1)[0] // 2)
        self.energy_shift = 0.0

    def sample(self, count: int) -> Samples:
        """Samples properties for the targets, and a fingerprint for each."""
        seeds = np.random.SeedSequence([self._seed, self._calls]).generate_state(3) // 2
        self._calls += 1
        model, targets = self._model, self._request.targets
        rng = np.random.default_rng(seeds[0])
        wanted = model.sample_properties({t.name: t.value for t in targets}, count, rng)
        names = [c.name for c in model.conditions]
        energies = np.full(count, np.nan)
        if ENERGY_PER_ATOM in names:
            place = names.index(ENERGY_PER_ATOM)
            energies = wanted[:, place].copy()
            wanted[::2, place] += self.energy_shift
        conditions = model.condition_vectors(wanted, self._request.numbers)
        return Samples(model.sample(conditions, int(seeds[1])), energies, int(seeds[2]))


class InvertingProposer:
    """Inverts sampled fingerprints; every proposal is a candidate."""

    def __init__(
        self,
        model: Model,
        request: Request,
        sampler: FingerprintSampler,
        settings: GenerationSettings,
        *,
        results: ResultStore | None = None,
        progress: bool = False,
    ) -> None:
        self._model, self._request, self._sampler = model, request, sampler
        self._settings, self._progress = settings, progress
        self._results = ResultStore() if results is None else results
        self.proposed = 0

    def take(self, count: int) -> list[Proposal]:
        """Returns `count` inverted fingerprints."""
        model, samples = self._model, self._sampler.sample(count)
        self.proposed += count
        key = _key(model, self._request, samples, self._settings)
        found = self._results.keep(key, lambda: self._invert(samples))
        structures = [Atoms(found["numbers"], positions=x) for x in found["positions"]]
        return [
            Proposal(
                structure=atoms,
                fingerprint=fingerprint,
                predicted={},
                loss=float(loss),
                status=status_of(
                    atoms, loss, model.tolerance, model.validity_thresholds.overlap_factor
                ),
            )
            for atoms, fingerprint, loss in zip(
                structures, samples.fingerprints, found["loss"], strict=True
            )
        ]

    def _invert(self, samples: Samples) -> dict[str, Any]:
        """Returns positions and losses, JSON-able."""
        found = reconstruct(
            self._model.fingerprint,
            samples.fingerprints,
            Atoms(self._request.numbers).get_chemical_formula(),
            seed=samples.seed,
            scale=self._model.scale,
            max_rounds=self._settings.max_rounds,
            settings=self._settings.search,
            progress=self._progress,
        )
        return {
            "numbers": found.structures[0].numbers.tolist(),
            "positions": [structure.positions.tolist() for structure in found.structures],
            "loss": found.loss.tolist(),
        }

    def take_promising(self, count: int) -> list[Proposal]:
        """Returns `count` inverted fingerprints: all may be on target and new."""
        return self.take(count) if count else []


class ScreeningProposer:
    """Relaxes many proposals on the NNP, and hands out the best of them."""

    def __init__(
        self,
        model: Model,
        request: Request,
        sampler: FingerprintSampler,
        settings: ProposalSettings,
        *,
        results: ResultStore | None = None,
        progress: bool = False,
    ) -> None:
        self._model, self._request, self._sampler = model, request, sampler
        self._settings, self._progress = settings, progress
        self._results = ResultStore() if results is None else results
        self._nnp = cast(NeuralPotential, model.neural_potential)
        self._training = training_structures(model, request.numbers)
        self.proposed = 0
        self.waiting: list[Proposal] = []
        self.taken: list[Atoms] = []

    def take(self, count: int) -> list[Proposal]:
        """Returns the `count` best candidates; proposes more until there are enough."""
        order = self._propose_until_promising(count).order
        while len(order) < count:
            self.propose(self._settings.per_candidate * count)
            order = self._ranking().order
        return self._remove(order[:count])

    def take_promising(self, count: int) -> list[Proposal]:
        """Returns up to `count` candidates, only such as may be on target and new."""
        ranking = self._propose_until_promising(count)
        return self._remove(ranking.order[: min(count, ranking.possible)])

    def propose(self, count: int) -> None:
        """Makes `count` more proposals, which then wait to be taken."""
        samples = self._sampler.sample(count)
        self.proposed += count
        key = _key(self._model, self._request, samples, self._settings)
        found = self._results.keep(key, lambda: self._make(samples))
        structures = [Atoms(self._request.numbers, positions=x) for x in found["positions"]]
        energies, sound = np.array(found["energies"], float), np.array(found["sound"], bool)
        self.waiting += self._assess(
            structures, energies / len(self._request.numbers), sound, samples
        )

    def _make(self, samples: Samples) -> dict[str, Any]:
        """Returns positions, energies, eV, and which structures are sound, JSON-able."""
        request, settings, count = self._request, self._settings, len(samples.fingerprints)
        with tqdm(total=count, desc="proposing", unit="", disable=not self._progress) as bar:
            positions = invert_coarsely(
                self._model.fingerprint,
                samples.fingerprints,
                request.numbers,
                self._model.scale,
                seed=samples.seed,
                settings=settings,
                advance=bar.update,
            )
            if not request.minima:
                positions = move_to_energies(
                    self._nnp, positions, request.numbers, samples.energies, settings
                )
        inverted = centred_structures(request.numbers, positions)
        structures, energies, sound = self._relax(inverted)
        return {
            "positions": [structure.positions.tolist() for structure in structures],
            "energies": energies.tolist(),
            "sound": sound.tolist(),
        }

    def _propose_until_promising(self, count: int) -> Ranking:
        """Proposes until enough are promising, or as many as a request may."""
        most = self._settings.max_per_structure * self._request.count
        ranking = self._ranking()
        while ranking.promising < count and self.proposed < most:
            self.propose(self._settings.per_candidate * (count - ranking.promising))
            ranking = self._ranking()
        return ranking

    def _ranking(self) -> Ranking:
        return rank(self.waiting, self.taken, self._settings)

    def _remove(self, places: list[int]) -> list[Proposal]:
        picked = [self.waiting[i] for i in places]
        gone = set(places)
        self.waiting = [p for i, p in enumerate(self.waiting) if i not in gone]
        self.taken += [p.structure for p in picked]
        return picked

    def _relax(self, inverted: list[Atoms]) -> tuple[list[Atoms], np.ndarray, np.ndarray]:
        """Relaxes structures on the NNP, if minima are wanted.

        Returns:
            Structures; energies [n], eV; which are valid, and at a minimum if that is wanted, [n].
        """
        limits = self._model.validity_thresholds
        if not self._request.minima:
            energies = np.asarray(self._nnp.compute(inverted)["energy"])
            return inverted, energies, np.isfinite(energies) & limits.valid(inverted)
        found = relax(
            inverted, self._nnp, fmax=self._settings.fmax, max_steps=self._settings.max_steps
        )
        structures = [
            relaxed if np.isfinite(relaxed.positions).all() else initial
            for relaxed, initial in zip(found.structures, inverted, strict=True)
        ]
        return structures, found.energy, found.converged & limits.valid(structures)

    def _assess(
        self,
        structures: list[Atoms],
        energies: np.ndarray,
        sound: np.ndarray,
        samples: Samples,
    ) -> list[Proposal]:
        """Predicts properties, and compares with the training structures; energies in eV/atom."""
        model, targets, settings = self._model, self._request.targets, self._settings
        names = [c.name for c in model.conditions]
        values = {ENERGY_PER_ATOM: energies}
        values.update(compute(structures, [name for name in names if name in GEOMETRIC]))
        fingerprints = np.zeros_like(samples.fingerprints)
        if sound.any():
            kept = np.flatnonzero(sound)
            fingerprints[kept] = model.fingerprint.create([structures[i] for i in kept])
            self._shift_energy(energies[sound])
        if not set(names) <= set(values):
            predicted = model.predict_properties(fingerprints)
            predicted[~sound] = np.nan
            for i, name in enumerate(names):
                values.setdefault(name, predicted[:, i])
        errors = scaled_errors(fingerprints, samples.fingerprints, model.scale)
        loss = np.where(sound, fingerprint_loss(errors), np.inf)
        alike = equality.match(structures, self._training, settings.alike_tolerance) >= 0
        equal = equality.match(structures, self._training, settings.equal_tolerance) >= 0
        failure = (
            "no valid minimum of the NNP was reached"
            if self._request.minima
            else "the structure at the target energy is not valid"
        )
        rows = [{name: float(values[name][i]) for name in names} for i in range(len(structures))]
        # A network whose numbers overflow samples fingerprints that no structure can have.
        compared = np.where(np.isfinite(loss), Status.CONVERGED.name, Status.NO_FINGERPRINT.name)
        statuses = np.where(sound, compared, Status.NOT_VALID.name)
        return [
            Proposal(
                structure=atoms,
                fingerprint=samples.fingerprints[i],
                predicted=rows[i],
                loss=float(loss[i]),
                status=Status[statuses[i]],
                status_detail="" if sound[i] else failure,
                alike=bool(alike[i]),
                equal=bool(equal[i]),
                miss=largest_miss(targets, rows[i]),
            )
            for i, atoms in enumerate(structures)
        ]

    def _shift_energy(self, energies: np.ndarray) -> None:
        """Makes up for the energy that structures lose on the way to a minimum.

        Args:
            energies: of the sound structures of a round, eV/atom.
        """
        target = next((t for t in self._request.targets if t.name == ENERGY_PER_ATOM), None)
        if target is None or not self._request.minima:
            return
        settings, sampler = self._settings, self._sampler
        names = [c.name for c in self._model.conditions]
        spread = np.sqrt(self._model.covariance[(names.index(ENERGY_PER_ATOM),) * 2])
        lost = 0.5 * (target.low + target.high) - np.median(energies)
        shift = sampler.energy_shift + settings.shift_rate * lost
        bound = settings.max_shift * spread
        sampler.energy_shift = float(np.clip(shift, -bound, bound))
