"""What `benchmark_generation.py` compares: tfgen's generation, and its rivals."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from tfgen.generation.generate import generate
from tfgen.generation.records import raw_structures
from tfgen.generation.settings import GenerationSettings
from tfgen.potentials.emt import EMT
from tfgen.relaxation.relax import relax
from tfgen.sampling.initial import random_structures
from tfgen.structures.properties import ENERGY_PER_ATOM

sys.path.append(str(Path(__file__).resolve().parents[1] / "paper"))

if TYPE_CHECKING:
    from tfgen.models.model import Model

__all__ = ["STAGES", "Made", "Method", "Workshop"]

STAGES = ("decoded", "reconstructed", "relaxed")
RATTLE = 0.3  # Å, standard deviation of a coordinate
# How many of the training structures nearest to a target are rattled, in turn.
NEAREST = 40
HALTED = 40  # steps of a relaxation at most that is halted on its way
PAPER_LOWEST = 1.9  # eV, of the lowest structure: the paper's networks see energies unscaled


@dataclass
class Made:
    """What a method made for one target.

    Attributes:
        structures: in their final state.
        raw: before relaxation.
        energies: stage -> [n], eV/atom; a stage may be missing.
        final: the stage that is assessed.
        relaxations: how many were spent; where nothing is relaxed, single calculations.
        calculations: single calculations they took.
        seconds, cpu: elapsed, and of the processors.
    """

    structures: list[Atoms]
    raw: list[Atoms]
    energies: dict[str, np.ndarray]
    final: str
    relaxations: int
    calculations: float
    seconds: float = 0.0
    cpu: float = 0.0


# Of (target, number of the target, how many, number of the batch).
Method = Callable[[float, int, int, int], Made]


@dataclass
class Workshop:
    """All methods for one composition.

    Args:
        model: trained on the data set.
        structures: of the training split, of this composition.
        energies: theirs, eV/atom.
        numbers: [atoms], the composition.
        seed: of all that is generated.
    """

    model: Model
    structures: list[Atoms]
    energies: np.ndarray
    numbers: np.ndarray
    seed: int
    _emt: EMT = field(default_factory=EMT)

    # Rivals that continue until they have enough hits, and those that relax whatever the data are.
    endless = ("rattled", "random", "halted")
    relaxes = ("training", "rattled", "random")

    @property
    def final(self) -> str:
        """Where our structures end: "relaxed", or "reconstructed" if the data are no minima."""
        return "relaxed" if self.model.minima else "reconstructed"

    def methods(self) -> dict[str, Method]:
        """Returns name -> method."""
        found: dict[str, Method] = {
            "one shot": self.ours(1),
            "chosen": self.ours(10),
            "training": self.training,
            "rattled": self.rattled,
            "random": self.random,
        }
        if not self.model.minima:
            found["halted"] = self.halted
        return found

    def per_atom(self, structures: list[Atoms]) -> np.ndarray:
        """EMT's energies, eV/atom."""
        return self._emt.compute(structures)["energy"] / len(self.numbers)

    def relaxed(self, raw: list[Atoms]) -> Made:
        """Relaxes what was made."""
        found = relax(raw, self._emt)
        energies = {
            "reconstructed": self.per_atom(raw),
            "relaxed": found.energy / len(self.numbers),
        }
        # The first point takes a calculation, too.
        calculations = float(found.steps.sum() + len(raw))
        return Made(found.structures, raw, energies, "relaxed", len(raw), calculations)

    def ours(self, candidates: int) -> Method:
        """`tfgen.generate` with that many candidates for each structure."""

        def run(target: float, place: int, count: int, batch: int) -> Made:
            began, cpu = time.perf_counter(), time.process_time()
            made = generate(
                self.model,
                Atoms(self.numbers).get_chemical_formula(),
                {ENERGY_PER_ATOM: target},
                count,
                seed=self.seed + 100 * batch + place,
                potential=self._emt,
                relax=self.model.minima,
                settings=GenerationSettings(candidates=candidates),
            )
            spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
            energies = {
                stage: np.array([np.nan if v is None else v for v in column])
                for stage in STAGES
                if (column := [a.info[stage].get(ENERGY_PER_ATOM) for a in made])
                and (self.model.minima or stage != "relaxed")
            }
            raw = raw_structures(made)
            relaxations = sum(a.info["candidates"] for a in made)
            # Records do not say how long the relaxations were: those of what came back say it.
            mean = 1 + float(relax(raw, self._emt).steps.mean()) if self.model.minima else 1.0
            return Made(made, raw, energies, self.final, relaxations, mean * relaxations, **spent)

        return run

    def training(self, _target: float, place: int, count: int, batch: int) -> Made:
        """Training structures, sampled at random."""
        rng = np.random.default_rng([self.seed, place, batch])
        picked = rng.integers(len(self.structures), size=count)
        chosen = [self.structures[i] for i in picked]
        energies = {"relaxed": self.energies[picked]}
        return Made(chosen, chosen, energies, "relaxed", 0, 0.0)

    def rattled(self, target: float, place: int, count: int, batch: int) -> Made:
        """The training structures nearest to the target, rattled and relaxed."""
        rng = np.random.default_rng([self.seed, place, batch])
        nearest = np.resize(np.argsort(np.abs(self.energies - target))[:NEAREST], count)
        raw = [self.structures[i].copy() for i in nearest]
        for atoms in raw:
            atoms.positions += RATTLE * rng.standard_normal(atoms.positions.shape)
        return self.relaxed(raw)

    def random_structures(self, place: int, count: int, batch: int) -> list[Atoms]:
        """Random structures, not relaxed."""
        rng = np.random.default_rng([self.seed, place, batch])
        return [
            Atoms(self.numbers, positions=x) for x in random_structures(self.numbers, count, rng)
        ]

    def random(self, _target: float, place: int, count: int, batch: int) -> Made:
        """Random structures, relaxed."""
        return self.relaxed(self.random_structures(place, count, batch))

    def halted(self, target: float, place: int, count: int, batch: int) -> Made:
        """Random structures, their relaxation halted where the energy is nearest to the target."""
        raw = self.random_structures(place, count, batch)
        best, energy = list(raw), self.per_atom(raw)
        steps, going = np.zeros(count, int), np.ones(count, bool)
        for taken in range(1, HALTED + 1):
            rows = np.flatnonzero(going)
            if not rows.size:
                break
            # From the start each time, as a relaxation in pieces would forget its curvature.
            found = relax([raw[i] for i in rows], self._emt, max_steps=taken)
            now = found.energy / len(self.numbers)
            for i, structure, value in zip(rows, found.structures, now, strict=True):
                if abs(value - target) < abs(energy[i] - target):
                    best[i], energy[i] = structure, value
            steps[rows] = taken
            going[rows] = (now > target) & ~found.converged
        # What it would take in one go.
        began, cpu = time.perf_counter(), time.process_time()
        relax(raw, self._emt, max_steps=int(steps.max()))
        spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        energies = {"reconstructed": energy}
        calculations = float(steps.sum() + count)
        return Made(best, best, energies, "reconstructed", count, calculations, **spent)

    def paper(self, seed: int) -> Method:
        """The source paper's recipe: its fingerprint, networks and inversion.

        Args:
            seed: of the networks' training.
        """
        from paper_inversion import invert
        from paper_network import fit

        from tfgen.fingerprints.fingerprint import Fingerprint

        size = len(self.numbers)
        species = sorted({*Atoms(self.numbers).get_chemical_symbols()})
        fingerprint = Fingerprint.preset("fung2022", species)
        totals = self.energies * size
        zero = totals.min() - PAPER_LOWEST
        networks = fit(fingerprint.create(self.structures), totals - zero, seed=seed)

        def run(target: float, place: int, count: int, batch: int) -> Made:
            number = self.seed + 100 * batch + place
            sampled = networks.sample(target * size - zero, count, number)
            found = invert(fingerprint, sampled, self.numbers, seed=number)
            raw = [Atoms(self.numbers, positions=x) for x in found.positions]
            made = self.relaxed(raw)
            made.energies["decoded"] = (networks.energies(sampled) + zero) / size
            if not self.model.minima:
                made.structures, made.final, made.calculations = raw, "reconstructed", float(count)
            return made

        return run
