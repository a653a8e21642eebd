"""Generation: complete and true records, failures kept, warnings and refusals."""

from __future__ import annotations

import dataclasses
import json
import warnings

import ase.calculators.emt
import ase.io
import numpy as np
import pytest
import small
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from tfgen.generation import proposers, verification
from tfgen.generation.generate import generate
from tfgen.generation.records import raw_structures, read_record, write
from tfgen.generation.settings import GenerationSettings
from tfgen.models.model import Condition, Model
from tfgen.relaxation.relax import RelaxationResult
from tfgen.structures.properties import radius_of_gyration
from tfgen.structures.status import Status
from tfgen.targets import Target
from tfgen.warnings import TfgenWarning

ENERGY, SIZE = small.PROPERTIES
MIDDLE = {ENERGY: 1.6}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with small.quick_search():
        yield


def run(
    targets=MIDDLE, formula="Pt6", count=4, *, model=None, candidates=1, fmax=0.01, **options
) -> list[Atoms]:
    options = {"potential": small.potential(), "relax": False, **options}
    settings = GenerationSettings(candidates=candidates, fmax=fmax, max_rounds=0)
    return generate(model or small.model(), formula, targets, count, settings=settings, **options)


def energies(structures) -> np.ndarray:
    """eV/atom by ASE's own EMT."""
    values = []
    for structure in structures:
        atoms = Atoms(structure.numbers, positions=structure.positions)
        atoms.calc = ase.calculators.emt.EMT()
        values.append(atoms.get_potential_energy() / len(atoms))
    return np.array(values)


def stage(generated, name: str, what: str) -> np.ndarray:
    return np.array([atoms.info[name][what] for atoms in generated])


@pytest.fixture(scope="module")
def relaxed():
    return run({ENERGY: (1.4, 1.8)}, relax=True, seed=3)


class TestRecord:
    def test_is_complete(self, relaxed):
        assert len(relaxed) == 4
        for i, atoms in enumerate(relaxed):
            info = atoms.info
            assert set(info) == {
                "target", "decoded", "predicted", "reconstructed", "relaxed", "evaluated_by",
                "fingerprint_loss", "tolerance", "status", "seed", "request", "candidates",
                "calculations", "proposed", "verified", "seconds",
            }  # fmt: skip
            assert info["target"] == {ENERGY: [1.4, 1.8]}
            for name in ("decoded", "reconstructed", "relaxed"):
                assert list(info[name]) == [ENERGY, SIZE]
                assert all(type(value) is float for value in info[name].values())
            assert info["evaluated_by"] == {ENERGY: "emt", SIZE: "geometry"}
            assert (info["seed"], info["request"], info["candidates"]) == (3, i, 1)
            assert info["predicted"] == {}
            assert info["seconds"] > 0
            assert info["tolerance"] == small.model().tolerance
            assert info["status"] in ("converged", "overlapping atoms")
            assert info["fingerprint_loss"] <= info["tolerance"]
            assert str(atoms.symbols) == "Pt6"
            assert not atoms.pbc.any()

    def test_values_are_those_of_the_structures(self, relaxed):
        raw = raw_structures(relaxed)
        for name, structures in (("reconstructed", raw), ("relaxed", relaxed)):
            np.testing.assert_allclose(stage(relaxed, name, ENERGY), energies(structures))
            np.testing.assert_allclose(stage(relaxed, name, SIZE), radius_of_gyration(structures))

    def test_relaxation_comes_after_reconstruction(self, relaxed):
        assert (stage(relaxed, "relaxed", ENERGY) < stage(relaxed, "reconstructed", ENERGY)).all()
        for atoms, raw in zip(relaxed, raw_structures(relaxed), strict=True):
            assert np.abs(atoms.positions - raw.positions).max() > 0.01
            still = Atoms(atoms.numbers, positions=atoms.positions)
            still.calc = ase.calculators.emt.EMT()
            assert np.linalg.norm(still.get_forces(), axis=1).max() <= 0.01 * (1 + 1e-6)

    def test_survives_the_file(self, relaxed, tmp_path):
        write(relaxed, tmp_path / "out.extxyz")
        back = ase.io.read(tmp_path / "out.extxyz", ":")
        for ours, theirs in zip(relaxed, back, strict=True):
            # NumPy's scalars and arrays are none of JSON's types; ASE gives some for numbers.
            plain = {
                k: v.item() if isinstance(v, np.generic) else v for k, v in theirs.info.items()
            }
            assert json.loads(json.dumps(plain)) == ours.info
            np.testing.assert_allclose(theirs.positions, ours.positions, atol=1e-7)
            name = "reconstructed_positions"
            np.testing.assert_allclose(theirs.arrays[name], ours.arrays[name], atol=1e-7)
            assert read_record(theirs, "structure").targets == (Target.of(ENERGY, [1.4, 1.8]),)

    def test_loss_and_decoded_values_are_of_the_sampled_fingerprint(self, monkeypatch):
        sampled = []

        def sample(model, conditions, seed):
            sampled.append(original(model, conditions, seed))
            return sampled[-1]

        original = Model.sample
        monkeypatch.setattr(Model, "sample", sample)
        generated = run()
        model = small.model()
        error = np.abs(model.fingerprint.create(generated) - sampled[0]) / model.scale
        losses = [atoms.info["fingerprint_loss"] for atoms in generated]
        np.testing.assert_allclose(losses, error.mean(axis=1), rtol=1e-6)
        predicted = model.predict_properties(sampled[0])
        np.testing.assert_allclose(stage(generated, "decoded", ENERGY), predicted[:, 0])
        np.testing.assert_allclose(stage(generated, "decoded", SIZE), predicted[:, 1])


class TestRequests:
    @pytest.fixture
    def asked(self, monkeypatch):
        """The properties that fingerprints were asked for."""
        seen = []
        original = Model.sample_properties

        def sample(*arguments):
            seen.append(original(*arguments))
            return seen[-1]

        monkeypatch.setattr(Model, "sample_properties", sample)
        return seen

    def test_open_properties_are_sampled(self, asked):
        generated = run()
        assert (asked[0][:, 0] == 1.6).all()
        assert np.ptp(asked[0][:, 1]) > 0
        assert generated[0].info["target"] == MIDDLE

    def test_two_properties(self, asked):
        generated = run({SIZE: (2.0, 2.2), ENERGY: 1.5})
        assert (asked[0][:, 0] == 1.5).all()
        assert ((asked[0][:, 1] >= 2.0) & (asked[0][:, 1] <= 2.2)).all()
        assert generated[0].info["target"] == {SIZE: [2.0, 2.2], ENERGY: 1.5}

    def test_of_another_size(self):
        generated = run(formula="Pt5", count=2)
        assert [str(atoms.symbols) for atoms in generated] == ["Pt5", "Pt5"]

    def test_repeat_with_the_seed_only(self, relaxed):
        again = run({ENERGY: (1.4, 1.8)}, relax=True, seed=3)
        other = run({ENERGY: (1.4, 1.8)}, seed=4)
        for a, b, c in zip(relaxed, again, other, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)
            assert {**a.info, "seconds": 0} == {**b.info, "seconds": 0}
            assert a.info["decoded"] != c.info["decoded"]
        decoded = [a.info["decoded"][ENERGY] for a in relaxed]
        assert len(set(decoded)) == 4  # no two the same

    def test_reconstruction_alone(self):
        for atoms in run():
            assert atoms.info["relaxed"] == {}
            assert "reconstructed_positions" not in atoms.arrays
            assert energies([atoms])[0] == pytest.approx(atoms.info["reconstructed"][ENERGY])


class TestFailures:
    def test_of_the_inversion_are_kept(self):
        model = dataclasses.replace(small.model(), tolerance=1e-9)
        generated = run(model=model, relax=True)
        assert len(generated) == 4
        for atoms in generated:
            assert atoms.info["status"] == "not converged"
            assert atoms.info["fingerprint_loss"] > atoms.info["tolerance"] == 1e-9
            assert atoms.info["relaxed"][ENERGY] < atoms.info["reconstructed"][ENERGY]

    def test_of_the_relaxation_are_kept(self):
        model = dataclasses.replace(small.model(), tolerance=1e3)
        generated = run(model=model, relax=True, fmax=1e-30)
        statuses = {atoms.info["status"] for atoms in generated}
        assert statuses <= {"relaxation not converged", "overlapping atoms"}
        assert "relaxation not converged" in statuses

    def test_values_that_are_not_finite_are_null(self, monkeypatch, tmp_path):
        def relax(structures, potential, **_):
            n = len(structures)
            energy = np.array([np.nan, *np.ones(n - 1)])
            return RelaxationResult(
                structures=structures,
                energy=energy,
                forces=[np.full(s.positions.shape, np.nan) for s in structures],
                fmax=np.full(n, np.nan),
                steps=np.ones(n),
                status=[Status.CALCULATOR_FAILED, *[Status.CONVERGED] * (n - 1)],
                detail=[""] * n,
                calculations=np.ones(n, int),
            )

        monkeypatch.setattr(verification, "relax", relax)
        model = dataclasses.replace(small.model(), tolerance=1e3)
        generated = run(model=model, relax=True)
        assert generated[0].info["relaxed"][ENERGY] is None
        assert generated[0].info["status"] == "calculator failed"
        # Nothing was relaxed that could have a size.
        assert generated[0].info["relaxed"][SIZE] is None
        assert generated[1].info["relaxed"][ENERGY] == pytest.approx(1 / 6)
        write(generated, tmp_path / "out.extxyz")
        back = ase.io.read(tmp_path / "out.extxyz", 0)
        assert back.info["relaxed"][ENERGY] is None


class Springs(Calculator):
    """E = Σ (r_ij - 2.6 Å)², over all pairs: an ASE calculator with an energy of its own."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = atoms.positions[:, None] - atoms.positions[None]
        distances = np.linalg.norm(vectors, axis=-1) + np.eye(len(atoms)) * 2.6
        stretch = distances - 2.6
        pull = (stretch / distances)[..., None] * vectors
        self.results = {"energy": 0.5 * (stretch**2).sum(), "forces": -2 * pull.sum(axis=1)}


class FailsAtFirst(Springs):
    """Has no energy for the structures that it sees first."""

    def __init__(self, failures: int = 1) -> None:
        super().__init__()
        self.failures = failures

    def calculate(self, *arguments, **options):
        self.failures -= 1
        if self.failures >= 0:
            raise RuntimeError("SCF not converged")
        super().calculate(*arguments, **options)


class TestPotentials:
    def test_a_calculator_of_ase_gives_the_same_as_our_emt(self, relaxed):
        generated = run({ENERGY: (1.4, 1.8)}, seed=3, potential=ase.calculators.emt.EMT())
        for ours, theirs in zip(relaxed, generated, strict=True):
            assert theirs.info["reconstructed"] == pytest.approx(ours.info["reconstructed"])
            assert theirs.info["evaluated_by"][ENERGY] == "ase.calculators.emt:EMT"

    def test_a_calculator_of_ase_relaxes(self):
        with pytest.warns(TfgenWarning, match="trained on energies of emt, and .*:Springs evalu"):
            generated = run(count=2, relax=True, potential=Springs(), fmax=0.05)
        for atoms in generated:
            raw = raw_structures([atoms])[0]
            for structure, name in ((raw, "reconstructed"), (atoms, "relaxed")):
                free = Atoms(structure.numbers, positions=structure.positions)
                free.calc = Springs()
                found = free.get_potential_energy() / 6
                assert atoms.info[name][ENERGY] == pytest.approx(found)
            assert atoms.info["relaxed"][ENERGY] < atoms.info["reconstructed"][ENERGY]
            assert atoms.info["evaluated_by"] == {ENERGY: f"{__name__}:Springs", SIZE: "geometry"}

    def test_relaxing_with_one_does_not_pass_for_evaluating_with_another(self):
        model = small.model()
        generated = run(potential=None, relax=small.potential())
        assert generated[0].info["evaluated_by"] == {ENERGY: "surrogate", SIZE: "geometry"}
        assert "verified" not in generated[0].info
        for name, structures in (
            ("reconstructed", raw_structures(generated)),
            ("relaxed", generated),
        ):
            predicted = model.predict_properties(model.fingerprint.create(structures))
            np.testing.assert_allclose(stage(generated, name, ENERGY), predicted[:, 0])
        generated = run(count=2, relax=Springs(), fmax=0.05)
        assert generated[0].info["evaluated_by"][ENERGY] == "emt"
        np.testing.assert_allclose(stage(generated, "relaxed", ENERGY), energies(generated))

    def test_a_calculator_that_fails_for_a_structure(self):
        """The structure comes back, without an energy."""
        model = dataclasses.replace(small.model(), potential=None)
        with pytest.warns(TfgenWarning, match="failed for 1 of 4 structures"):
            generated = run(model=model, relax=True, potential=FailsAtFirst(), fmax=0.05)
        assert len(generated) == 4
        assert generated[0].info["reconstructed"][ENERGY] is None
        assert generated[1].info["reconstructed"][ENERGY] is not None
        # It is judged by what it is in the end.
        assert generated[0].info["relaxed"][ENERGY] is not None
        assert generated[0].info["status"] != Status.CALCULATOR_FAILED

    def test_emt_is_taken_where_the_data_had_it(self, monkeypatch):
        generated = run(potential="auto")
        np.testing.assert_allclose(stage(generated, "reconstructed", ENERGY), energies(generated))
        model = dataclasses.replace(small.model(), potential=None)
        generated = run(model=model, potential="auto")
        assert generated[0].info["evaluated_by"] == {ENERGY: "surrogate", SIZE: "geometry"}
        predicted = model.predict_properties(model.fingerprint.create(generated))
        np.testing.assert_allclose(stage(generated, "reconstructed", ENERGY), predicted[:, 0])
        with pytest.raises(
            ValueError, match="relax is True, but there is no potential; pass one, or relax=False"
        ):
            run(model=model, potential="auto", relax=True)

    def test_relaxation_needs_one(self):
        with pytest.raises(ValueError, match="relax is True, but there is no potential"):
            run(potential=None, relax=True)

    def test_a_property_that_nothing_computes_is_predicted(self):
        conditions = (Condition("gap", "eV", 1.0, 2.0), small.model().conditions[1])
        model = dataclasses.replace(small.model(), conditions=conditions)
        generated = run({"gap": 1.5}, model=model)
        assert generated[0].info["evaluated_by"] == {"gap": "surrogate", SIZE: "geometry"}
        predicted = model.predict_properties(model.fingerprint.create(generated))
        np.testing.assert_allclose(stage(generated, "reconstructed", "gap"), predicted[:, 0])


class TestWarnings:
    def test_of_targets_outside_the_training_range(self):
        low, high = small.model().conditions[0].low, small.model().conditions[0].high
        message = (
            rf"target energy_per_atom=9 is outside the training range {low:.4g} to {high:.4g} "
            "eV/atom"
        )
        with pytest.warns(UserWarning, match=message) as caught:
            assert len(run({ENERGY: 9.0}, count=2)) == 2
        assert len(caught) == 1
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match="radius_of_gyration=1:2.2 is outside .* Å"):
            run({ENERGY: 1.5, SIZE: (1.0, 2.2)}, count=2)

    def test_of_compositions_that_were_not_trained_on(self):
        with pytest.warns(UserWarning, match="not trained on Pt4, only on Pt5, Pt6|Pt6, Pt5"):
            assert len(run(formula="Pt4", count=2)) == 2

    def test_there_are_none_otherwise(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run()


class TestBadInput:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        monkeypatch.setattr(proposers, "reconstruct", lambda *_, **__: pytest.fail("begun"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (({"hue": 1.0},), "property 'hue' is unknown; the model knows energy_per_atom, rad"),
            (({},), "no target given; the model knows"),
            (({ENERGY: (2.0, 1.0)},), "low is above high"),
            (({ENERGY: np.nan},), "target energy_per_atom is nan"),
            ((MIDDLE, "Au6"), "'Au6' holds Au; the model was trained on Pt"),
            ((MIDDLE, "Pt5CuAu"), "holds Au, Cu; the model was trained on Pt"),
            ((MIDDLE, "water"), "formula 'water' is not a formula"),
            ((MIDDLE, ""), "formula '' is not a formula"),
            ((MIDDLE, "Pt0"), "formula 'Pt0' is not a formula"),
            ((MIDDLE, "Pt6", 0), "count is 0; a whole number of at least 1 is needed"),
            ((MIDDLE, "Pt6", -3), "count is -3"),
        ],
    )
    def test_is_refused_before_work_begins(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            run(*arguments)

    @pytest.mark.filterwarnings("ignore:the model was not trained on Pt")
    def test_a_single_atom(self, monkeypatch):
        monkeypatch.undo()
        with pytest.raises(ValueError, match="formula 'Pt' has a single atom"):
            run(formula="Pt")


class TestWriting:
    def test_refuses_to_replace_unless_told(self, tmp_path):
        path = tmp_path / "out.extxyz"
        path.write_text("mine")
        with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
            write([Atoms("Pt2", positions=np.eye(3)[:2] * 3)], path)
        assert path.read_text() == "mine"
        write([Atoms("Pt2", positions=np.eye(3)[:2] * 3)], path, overwrite=True)
        assert len(ase.io.read(path, ":")) == 1

    @pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left")])
    def test_interrupted_leaves_the_old_file_whole(self, tmp_path, monkeypatch, error):
        def fail(path, *_, **__):
            path.write_text("half")
            raise error

        monkeypatch.setattr(ase.io, "write", fail)
        path = tmp_path / "out.extxyz"
        path.write_text("mine")
        with pytest.raises((KeyboardInterrupt, OSError)):
            write([], path, overwrite=True)
        assert path.read_text() == "mine"
        assert list(tmp_path.iterdir()) == [path]


class Broken(Calculator):
    """A calculator that never works."""

    implemented_properties = ("energy", "forces")

    def calculate(self, *_arguments, **_options):
        raise RuntimeError("no licence")


def test_a_calculator_that_fails_loses_no_structure():
    model = dataclasses.replace(small.model(), potential=None, tolerance=1e3)
    with pytest.warns(UserWarning, match="failed for 2 of 2 .* with: RuntimeError: no licence"):
        generated = run(count=2, model=model, potential=Broken())
    assert len(generated) == 2
    for atoms in generated:
        assert atoms.info["status"] in ("calculator failed", "overlapping atoms")
        if atoms.info["status"] == "calculator failed":
            assert atoms.info["status_detail"] == "RuntimeError: no licence"
        assert atoms.info["reconstructed"][ENERGY] is None
        assert np.isfinite(atoms.positions).all()


def test_what_is_no_potential_is_refused_at_once():
    with pytest.raises(ValueError, match="potential is <object .*, neither a potential like tfgen"):
        run(potential=object())
    with pytest.raises(ValueError, match="'Pt' has a single atom"):
        run(formula="Pt")


def test_relaxing_with_another_potential_verifies_nothing():
    """A model of unknown energies, relaxed with EMT: the energy is still the surrogate's."""
    model = dataclasses.replace(small.model(), potential=None)
    generated = run(count=2, model=model, potential="auto", relax=small.potential())
    for atoms in generated:
        assert atoms.info["evaluated_by"][ENERGY] == "surrogate"
        predicted = model.predict_properties(model.fingerprint.create([atoms]))[0, 0]
        assert atoms.info["relaxed"][ENERGY] == pytest.approx(predicted, rel=1e-5)
