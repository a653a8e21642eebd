"""Properties by functions of the user's, and by the calculator itself."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import tfgen
from tfgen.potentials.ase import AsePotential
from tfgen.potentials.evaluation import evaluate
from tfgen.potentials.properties import calculator_functions, make_functions, run_functions
from tfgen.structures.status import Status

CLUSTER = Atoms("Pt4", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.2, 0], [1.2, 0.7, 2.1]])
CLUSTERS = [CLUSTER, Atoms("Pt2", [[0, 0, 0], [2.5, 0, 0]])]
RETURNS = {
    "text": "a",
    "array": np.zeros(3),
    "one_in_a_list": [1.0],
    "nan": float("nan"),
    "infinity": np.inf,
    "nothing": None,
    "complex": 1j,
    "truth": True,
}


def width(atoms: Atoms) -> float:
    return float(np.ptp(atoms.positions[:, 0]))


def energy_of_all(atoms: Atoms) -> float:
    return atoms.get_potential_energy()


def stiffness(atoms: Atoms) -> float:
    """Moves an atom, so that the calculator has to work again."""
    first = atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    return atoms.get_potential_energy() - first


def fail(atoms: Atoms) -> float:
    raise RuntimeError("no\nSCF")


def test_paths_and_functions():
    (by_path, by_object) = make_functions({"w": f"{__name__}:width", "v": width})
    assert by_path(CLUSTER) == by_object(CLUSTER) == 2.6
    assert by_path.source == by_object.source == f"{__name__}:width"


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"gap": "no_such_module:gap"}, "compute gap: 'no_such_module:gap' cannot be imported"),
        ({"gap": "math:no_such_thing"}, "cannot be imported: .*no attribute"),
        ({"gap": "math"}, "'math' is not of the form MODULE:FUNCTION"),
        ({"gap": "math:pi"}, "'math:pi' is a float, not a function"),
        ({"gap": 3}, "is a int, not a function"),
        ({"gap": "ase:Atoms"}, "is a type, not a function"),
        ({"energy_per_atom": width}, "tfgen computes energy_per_atom itself"),
        ({"asphericity": width}, "tfgen computes asphericity itself"),
        ({"a b": width}, "'a b' is no name for a property"),
        ({"": width}, "'' is no name"),
    ],
)
def test_what_is_no_function_of_structures(compute, message):
    with pytest.raises(ValueError, match=message):
        make_functions(compute)


@pytest.mark.parametrize("name", RETURNS)
def test_what_is_no_number(name):
    functions = make_functions({name: lambda _: RETURNS[name], "w": width})
    values, detail = run_functions(functions, CLUSTER)
    assert np.isnan(values[name])
    assert values["w"] == 2.6
    assert detail.startswith(f"{name}: ValueError: it returned ")
    assert detail.endswith("; a finite number is needed")


@pytest.mark.parametrize("potential", [None, tfgen.EMT(), AsePotential(EMT())])
def test_an_error_is_the_status_of_its_structure(potential):
    def some(atoms: Atoms) -> float:
        return fail(atoms) if len(atoms) == 2 else width(atoms)

    found = evaluate(potential, CLUSTERS, make_functions({"some": some}))
    assert found.status == [Status.CONVERGED, Status.PROPERTY_FAILED]
    assert found.detail == ["", "some: RuntimeError: no SCF"]
    np.testing.assert_array_equal(found.values["some"], [2.6, np.nan])
    assert np.isfinite(found.energy).all() == (potential is not None)
    assert found.calculations.tolist() == [1, 1]


def test_functions_have_the_potential_s_calculator():
    alone = []
    for structure in CLUSTERS:
        atoms = structure.copy()
        atoms.calc = EMT()
        alone.append([atoms.get_potential_energy(), stiffness(atoms)])
    functions = make_functions({"e": energy_of_all, "s": stiffness})
    for potential in (tfgen.EMT(), AsePotential(EMT())):
        before = [s.positions.copy() for s in CLUSTERS]
        found = evaluate(potential, CLUSTERS, functions)
        np.testing.assert_allclose(np.stack([*found.values.values()], 1), alone, atol=1e-9)
        np.testing.assert_allclose(found.energy, found.values["e"], atol=1e-12)
        for structure, positions in zip(CLUSTERS, before, strict=True):
            np.testing.assert_array_equal(structure.positions, positions)
            assert structure.calc is None
    nothing = evaluate(None, CLUSTERS, functions)
    assert nothing.status == [Status.PROPERTY_FAILED] * 2
    assert "no calculator" in nothing.detail[0]


def test_without_anything_to_compute():
    found = evaluate(None, CLUSTERS)
    assert found.status == [Status.CONVERGED] * 2
    assert found.calculations.tolist() == [0, 0]


def test_a_calculator_that_fails_leaves_its_properties_out():
    unknown = Atoms("Fe2", [[0, 0, 0], [2, 0, 0]])
    found = evaluate(AsePotential(EMT()), [unknown, CLUSTER], make_functions({"w": width}))
    assert found.status == [Status.CALCULATOR_FAILED, Status.CONVERGED]
    np.testing.assert_array_equal(found.values["w"], [np.nan, 2.6])


class Dipolar(SinglePointCalculator):
    """Knows what other calculators know, too."""

    implemented_properties = ("energy", "forces", "dipole", "charges", "magmom", "magmoms")

    def __init__(self) -> None:
        super().__init__(CLUSTER)

    def reset(self) -> None:
        pass

    def get_property(self, name, atoms=None, allow_calculation=True):
        return {
            "energy": -1.0,
            "forces": np.zeros([4, 3]),
            "dipole": np.array([3.0, 0.0, -4.0]),
            "charges": np.array([0.1, -0.4, 0.2, 0.1]),
            "magmom": 2.0,
        }[name]


def test_properties_of_the_calculator_by_their_names():
    potential = AsePotential(Dipolar())
    names = ["dipole", "gap", "charges", "magmom", "free_energy", "energy"]
    functions = calculator_functions(potential, names)
    found = evaluate(potential, [CLUSTER], functions)
    values = {name: value[0] for name, value in found.values.items()}
    assert values == {"dipole": 5.0, "charges": 0.4, "magmom": 2.0}
    assert {f.source for f in functions} == {potential.name}
    assert [f.unit for f in functions] == ["e Å", "e", "μB"]
    assert calculator_functions(tfgen.EMT(), names) == []
    assert calculator_functions(None, names) == []
