"""Properties that functions and calculators compute, what they cost, and interrupted requests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ase.io
import numpy as np
import pytest
import small
from ase import Atoms
from ase.calculators.emt import EMT

import tfgen
from tfgen.execution.results import ResultStore
from tfgen.generation import proposers
from tfgen.generation.generate import InterruptedRequest, generate
from tfgen.generation.records import raw_structures, write
from tfgen.generation.request import UnverifiableError, check_request
from tfgen.generation.settings import GenerationSettings
from tfgen.generation.verification import Verifier
from tfgen.models.model import Condition
from tfgen.models.neural_potential import EnergyNetwork
from tfgen.structures.status import Status
from tfgen.structures.validity import ValidityThresholds
from tfgen.warnings import TfgenWarning

ENERGY, SIZE = small.PROPERTIES
GAP = {"gap": 0.5}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with small.quick_search():
        yield


def model(unit="eV", name="gap", **other):
    """Knows a gap where the small model knows the size."""
    conditions = (small.model().conditions[0], Condition(name, unit, -99.0, 99.0))
    return dataclasses.replace(small.model(), conditions=conditions, tolerance=1e3, **other)


def run(targets=GAP, count=3, *, of=None, candidates=1, max_failures=10, **options) -> list[Atoms]:
    options = {"potential": small.potential(), "relax": False, **options}
    settings = GenerationSettings(candidates=candidates, max_rounds=0, max_failures=max_failures)
    return generate(of or model(), "Pt6", targets, count, settings=settings, **options)


def spread(atoms: Atoms) -> float:
    return float(atoms.get_all_distances().max())


def energy_twice(atoms: Atoms) -> float:
    return 2.0 * atoms.get_potential_energy()


@pytest.mark.parametrize("compute", [spread, f"{__name__}:spread"])
def test_a_function_is_called_before_and_after_relaxation(compute):
    generated = run({"gap": (0.0, 99.0)}, relax=True, compute={"gap": compute})
    for stage, structures in (("reconstructed", raw_structures(generated)), ("relaxed", generated)):
        found = [atoms.info[stage]["gap"] for atoms in generated]
        np.testing.assert_allclose(found, [spread(s) for s in structures], atol=1e-12)
    for atoms in generated:
        assert atoms.info["evaluated_by"] == {ENERGY: "emt", "gap": f"{__name__}:spread"}
        assert type(atoms.info["verified"]) is bool


def test_a_hit_is_one_by_the_function(monkeypatch):
    monkeypatch.setattr(proposers, "status_of", lambda *_: Status.CONVERGED)
    sound = model()
    sound.__dict__["validity_thresholds"] = ValidityThresholds(0.0, 99.0, 1.0)
    exact = [spread(a) for a in run({"gap": (0.0, 99.0)}, of=sound, compute={"gap": spread})]
    middle = float(np.median(exact))
    for tolerance in (0.5 * np.abs(np.array(exact) - middle).max(), 99.0):
        generated = run(
            {"gap": middle}, of=sound, compute={"gap": spread}, tolerance={"gap": tolerance}
        )
        for atoms in generated:
            assert atoms.info["hit_tolerance"] == {"gap": tolerance}
            assert atoms.info["verified"] is bool(abs(spread(atoms) - middle) <= tolerance)
    assert all(atoms.info["verified"] for atoms in generated)


def test_a_function_alone_tells_candidates_apart():
    """Without a potential."""
    generated = run({"gap": 0.01}, 1, potential=None, compute={"gap": spread}, candidates=None)
    assert generated[0].info["candidates"] > 1
    assert generated[0].info["evaluated_by"]["gap"] == f"{__name__}:spread"


def test_a_network_s_word_verifies_nothing(tmp_path):
    generated = run({"gap": (-99.0, 99.0), ENERGY: (1.4, 1.8)})
    assert generated[0].info["evaluated_by"] == {ENERGY: "emt", "gap": "surrogate"}
    write(generated, tmp_path / "out.extxyz")
    for atoms in ase.io.read(tmp_path / "out.extxyz", ":"):
        assert "verified" not in atoms.info
    with pytest.raises(UnverifiableError, match="nothing calculates gap to choose by; .* compute"):
        run(candidates=2)


def test_with_a_function_several_candidates_can_be_told_apart():
    generated = run({"gap": 0.01}, 2, compute={"gap": spread}, candidates=3)
    assert [atoms.info["candidates"] for atoms in generated] == [3, 3]
    assert not any(atoms.info["verified"] for atoms in generated)


def test_another_property_is_recorded_too():
    generated = run({ENERGY: 1.5}, of=small.model(), compute={"twice": energy_twice})
    for atoms in generated:
        per_atom = atoms.info["reconstructed"][ENERGY]
        assert atoms.info["reconstructed"]["twice"] == pytest.approx(12 * per_atom)
        assert list(atoms.info["decoded"]) == [ENERGY, SIZE]


def test_a_function_that_fails_is_a_status(monkeypatch):
    monkeypatch.setattr(proposers, "status_of", lambda *_: Status.CONVERGED)

    def broken(_: Atoms) -> float:
        raise RuntimeError("no gap")

    with pytest.warns(TfgenWarning, match="failed for 3 of 3 .* gap: RuntimeError: no gap"):
        generated = run(compute={"gap": broken})
    for atoms in generated:
        assert atoms.info["status"] == "property failed"
        assert atoms.info["status_detail"] == "gap: RuntimeError: no gap"
        assert atoms.info["reconstructed"]["gap"] is None
        assert atoms.info["verified"] is False


def test_where_all_fail_the_request_is_given_up(monkeypatch):
    """Before its whole budget is spent on what cannot be calculated."""
    monkeypatch.setattr(proposers, "status_of", lambda *_: Status.CONVERGED)
    calls = []

    def broken(atoms: Atoms) -> float:
        calls.append(atoms)
        raise RuntimeError("no gap")

    words = "the first 6 candidates all failed, last with: gap: RuntimeError: no gap"
    with (
        pytest.warns(TfgenWarning, match="calculations failed for 3 of 3"),
        pytest.raises(ValueError, match=words),
    ):
        run(compute={"gap": broken}, candidates=10, max_failures=4)
    assert len(calls) == 6

    def broken_at_first(atoms: Atoms) -> float:
        calls.append(atoms)
        return 1.0 if len(calls) > 8 else broken(atoms)

    with pytest.warns(TfgenWarning, match="calculations failed for"):
        run(compute={"gap": broken_at_first}, candidates=4, max_failures=4)


class Polar(EMT):
    """EMT with a dipole."""

    implemented_properties = (*EMT.implemented_properties, "dipole")

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["dipole"] = self.atoms.positions[0] * 2.0


class TestOwnProperties:
    """Of the calculator, by their ASE names."""

    def test_need_no_function(self):
        of = model("e Å", "dipole", potential=None)
        generated = run({"dipole": (0.0, 99.0)}, of=of, potential=Polar())
        for atoms in generated:
            expected = 2.0 * np.linalg.norm(atoms.positions[0])
            assert atoms.info["reconstructed"]["dipole"] == pytest.approx(expected)
            assert atoms.info["evaluated_by"]["dipole"] == f"{__name__}:Polar"
            assert "verified" in atoms.info

    def test_of_another_unit_are_another_quantity(self):
        generated = run({"dipole": 1.0}, of=model("debye", "dipole", potential=None),
                        potential=Polar())  # fmt: skip
        assert generated[0].info["evaluated_by"]["dipole"] == "surrogate"

    def test_that_the_potential_does_not_have(self):
        with pytest.raises(ValueError, match="compute: dipole has no function, and emt does not"):
            run(compute={"dipole": None, "gap": spread})
        with pytest.raises(ValueError, match="dipole has no function, and no potential does not"):
            run(compute={"dipole": None}, potential=None)


def test_the_energy_of_the_whole_is_the_potential_s():
    of = model("eV", "energy")
    generated = run({"energy": (0.0, 99.0)}, of=of)
    for atoms in generated:
        found = atoms.info["reconstructed"]
        assert found["energy"] == pytest.approx(6 * found[ENERGY])
        assert atoms.info["evaluated_by"]["energy"] == "emt"


def test_calculations_are_counted():
    of = dataclasses.replace(small.model(), potential=None)
    potential = tfgen.AsePotential(EMT())
    generated = run({ENERGY: 1.5}, of=of, potential=potential, relax=True, candidates=2)
    counted = sum(atoms.info["calculations"] for atoms in generated)
    assert counted == potential.calculations
    assert sum(atoms.info["proposed"] for atoms in generated) == sum(
        atoms.info["candidates"] for atoms in generated
    )


class Counting(EMT):
    """Writes a line for each calculation."""

    def __init__(self, log: str, stiff: float = 1.0) -> None:
        super().__init__()
        self.log, self.stiff = log, stiff

    def calculate(self, *arguments, **options):
        with Path(self.log).open("a") as file:
            file.write("computed\n")
        super().calculate(*arguments, **options)
        for name in ("energy", "forces"):
            self.results[name] = self.results[name] * self.stiff


class TestInterruptions:
    """With a calculator in worker processes, and a store that both share."""

    def request(self, path, log, stiff=1.0, of=None):
        store = ResultStore(path)
        arguments = {"log": str(log), "stiff": stiff}
        with tfgen.WorkerPotential(f"{__name__}:Counting", arguments, results=store) as potential:
            of = of or dataclasses.replace(small.model(), potential=None)
            return run(
                {ENERGY: 1.5}, of=of, potential=potential, relax=True, candidates=3, seed=5,
                results=store,
            )  # fmt: skip

    @pytest.fixture
    def interrupted(self, tmp_path, monkeypatch):
        """A store of a request that was interrupted after its first round."""
        verify, calls = Verifier.verify, []

        def once(self, *arguments):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return verify(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Verifier, "verify", once)
            with pytest.raises(InterruptedRequest) as caught:
                self.request(tmp_path / "kept", tmp_path / "log")
        assert all(atoms.info["verified"] for atoms in caught.value.structures)
        return tmp_path

    def count_inversions(self, monkeypatch):
        counts, reconstruct = [], proposers.reconstruct

        def counting(*arguments, **other):
            counts.append(len(arguments[1]))
            return reconstruct(*arguments, **other)

        monkeypatch.setattr(proposers, "reconstruct", counting)
        return counts

    def test_what_is_done_is_not_repeated(self, interrupted, tmp_path, monkeypatch):
        before = (interrupted / "log").read_text().count("computed")
        inverted = self.count_inversions(monkeypatch)
        resumed = self.request(interrupted / "kept", interrupted / "log")
        after = (interrupted / "log").read_text().count("computed")
        again, every = sum(inverted), sum(atoms.info["candidates"] for atoms in resumed)
        whole = self.request(tmp_path / "other", tmp_path / "other_log")
        # Together both took what an undisturbed request takes: the first round was not repeated.
        assert after == (tmp_path / "other_log").read_text().count("computed")
        assert 0 < before < after
        # The candidates of the second round had been proposed when it was interrupted.
        assert again == every - 2 * len(resumed)
        for ours, theirs in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(ours.positions, theirs.positions)
            for name in ("status", "relaxed", "candidates", "calculations", "proposed"):
                assert ours.info[name] == theirs.info[name]

    def test_another_calculator_s_results_are_not_taken(self, interrupted):
        found = self.request(interrupted / "kept", interrupted / "log", stiff=2.0)
        for atoms in found:
            energy = energies([atoms])[0]
            if atoms.info["relaxed"][ENERGY] is not None:
                assert atoms.info["relaxed"][ENERGY] == pytest.approx(2.0 * energy)

    def test_another_model_s_proposals_are_not_taken(self, interrupted, monkeypatch):
        other = small.train(
            small.dataset(), small.PROPERTIES, fingerprint=small.fingerprint(), seed=6,
            **small.TRAINING,
        )  # fmt: skip
        inverted = self.count_inversions(monkeypatch)
        of = dataclasses.replace(small.model(), cvae=other.cvae, potential=None)
        found = self.request(interrupted / "kept", interrupted / "log", of=of)
        assert sum(inverted) == sum(atoms.info["candidates"] for atoms in found)


def energies(structures) -> list[float]:
    """eV/atom by ASE's own EMT."""
    values = []
    for structure in structures:
        atoms = Atoms(structure.numbers, positions=structure.positions)
        atoms.calc = EMT()
        values.append(atoms.get_potential_energy() / len(atoms))
    return values


def test_what_is_kept_is_of_all_weights():
    """A model that is trained again may have the same CVAE, and another NNP."""
    model = small.model()
    assert model.digest == dataclasses.replace(model, tolerance=2.0).digest
    network = EnergyNetwork(features=12, elements=1)
    network.build()
    with_nnp = dataclasses.replace(model, nnp=network)
    other = EnergyNetwork(features=12, elements=1, seed=1)
    other.build()
    models = (model, with_nnp, dataclasses.replace(model, nnp=other))
    assert len({m.digest for m in models}) == 3
    request = check_request(
        model, "Pt6", {ENERGY: 1.5}, 1, seed=0, tolerance=None, potential=None, relax=False,
        candidates=None,
    )  # fmt: skip
    samples = proposers.Samples(np.zeros([1, 12]), np.zeros(1), 0)
    keys = {proposers._key(m, request, samples, small.QUICK_PROPOSALS) for m in models}
    assert len(keys) == 3
