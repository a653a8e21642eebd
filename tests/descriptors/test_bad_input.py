"""What users get wrong is refused before any computation, by name, with what is allowed.

What concerns one argument alone is tested with its class; here is what goes through several doors:
parameters in any disguise, structures into every `create`, tensors into every call.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference
import small
import tensorflow as tf
from ase import Atoms

from tfgen.descriptors.acsf import ACSF
from tfgen.descriptors.evaluator import Evaluator
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.batch import Neighbours, StructureBatch
from tfgen.structures.neighbours.displacements import check_batch

GOOD = {"species": ["Cu"], "r_cut": 4.0}
COLUMNS = {
    "g2_params": "[[eta, r_s], ...]",
    "g3_params": "[kappa, ...]",
    "g4_params": "[[eta, zeta, lambda], ...]",
    "g5_params": "[[eta, zeta, lambda], ...]",
}


def refusal(function, *arguments, **keywords) -> str:
    with pytest.raises(ValueError, match=".") as caught:
        function(*arguments, **keywords)
    return str(caught.value)


class TestParameters:
    @pytest.mark.parametrize("name", COLUMNS)
    @pytest.mark.parametrize("odd", [True, np.True_, "1", None, 1j, [1.0, 2.0], {}, "x"], ids=repr)
    def test_that_are_no_numbers(self, name, odd):
        good = [1.0] if name == "g3_params" else [[0.1, 2.0, 1.0][: COLUMNS[name].count(",")]]
        values = [odd] if name == "g3_params" else [[*good[0][:-1], odd]]
        message = refusal(ACSF, **GOOD, **{name: values})
        assert message.startswith(f"{name} ")
        assert COLUMNS[name] in message
        ACSF(**GOOD, **{name: good})

    @pytest.mark.parametrize("name", COLUMNS)
    @pytest.mark.parametrize(
        "values",
        [
            [[1.0, 2.0, 1.0], [1.0]],  # ragged
            [[[1.0, 2.0, 1.0]]],
            [1.0, [2.0]],
            [[1.0, 2.0, 1.0, 3.0]],
            "1.0",
            5.0,
            {"eta": 1.0},
            object(),
        ],
        ids=lambda values: repr(values)[:20],
    )
    def test_of_the_wrong_shape(self, name, values):
        message = refusal(ACSF, **GOOD, **{name: values})
        assert message.startswith(f"{name} ")
        assert COLUMNS[name] in message

    @pytest.mark.parametrize("name", COLUMNS)
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_that_are_not_finite(self, name, value):
        values = [value] if name == "g3_params" else [[0.1, value, 1.0][: COLUMNS[name].count(",")]]
        assert "not finite" in refusal(ACSF, **GOOD, **{name: values})

    @pytest.mark.parametrize("name", ["g4_params", "g5_params"])
    def test_out_of_range(self, name):
        for eta in (-1.0, -1e-12):
            assert "eta must be >= 0" in refusal(ACSF, **GOOD, **{name: [[eta, 1, 1]]})
        for zeta in (0.0, 0.999, -4):
            assert "zeta must be >= 1" in refusal(ACSF, **GOOD, **{name: [[0.1, zeta, 1]]})
        for lambda_ in (1.001, -2):
            assert "lambda must be in [-1, 1]" in refusal(ACSF, **GOOD, **{name: [[0, 1, lambda_]]})
        assert "eta must be >= 0" in refusal(ACSF, **GOOD, g2_params=[[-0.1, 2.0]])

    @pytest.mark.parametrize("none", [None, [], (), np.zeros([0, 2])])
    def test_none_are_none(self, none):
        assert ACSF(**GOOD, g2_params=none).size == 1

    def test_fractional_zeta_is_supported(self):
        """DScribe supports it; equal to the loops."""
        for zeta in (1.0, 1.001, 1.5, 2.5, 7.3, 63.9):
            params = [[0.05, zeta, 1], [0.05, zeta, -1]]
            acsf = ACSF(**GOOD, g4_params=params, g5_params=params)
            atoms = Atoms("Cu4", [[0, 0, 0], [1.9, 0, 0.2], [0, 2.0, 0], [0.3, 0.2, 2.1]])
            wanted = reference.acsf(atoms, [29], 4.0, g4=params, g5=params)
            np.testing.assert_allclose(acsf.create(atoms), wanted, rtol=1e-9, atol=1e-13)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"r_cut": -np.inf}, "r_cut is -inf; a positive number of Å is needed"),
            ({"r_cut": np.array([4.0])}, "r_cut is array([4.]); a positive number"),
            ({"r_cut": 4 + 0j}, "r_cut is (4+0j); a positive number"),
            ({"r_cut": np.True_}, "r_cut is"),
            ({"species": {"Cu": 1}}, "species is {'Cu': 1}; a list of elements"),
            ({"species": 29}, "species is 29; a list of elements"),
            ({"species": ["cu"]}, "species holds 'cu', which is not a chemical element"),
            ({"species": [True]}, "species holds True, which is not"),
            ({"species": [None]}, "species holds None, which is not"),
            ({"species": [119]}, "species holds 119, which is not"),
            ({"species": ["Cu", "Cu"]}, "species is ['Cu', 'Cu']; at least one element, none"),
            ({"periodic": "yes"}, "periodic is 'yes'; True or False is needed"),
            ({"periodic": None}, "periodic is None; True or False is needed"),
            ({"periodic": [True] * 3}, "periodic is [True, True, True]; True or False is needed"),
            ({"g1": 1}, "g1 is 1; True or False is needed"),
        ],
    )
    def test_of_the_whole(self, arguments, message):
        assert message in refusal(ACSF, **{**GOOD, **arguments})


def broken(**arrays) -> Atoms:
    atoms = Atoms("Cu2", [[0, 0, 0], [2, 0, 0]])
    atoms.arrays.update(arrays)
    return atoms


FLAT = [[3, 0, 0], [0, 3, 0], [1, 1, 0]]
STRUCTURES = [
    ([], " is empty; at least one structure is needed"),
    ((), " is empty; at least one structure is needed"),
    (None, " is a NoneType; an ase.Atoms or a list of them is needed"),
    (5, " is a int; an ase.Atoms or a list of them is needed"),
    ("Cu2", " is a str; an ase.Atoms or a list of them is needed"),
    ({"a": Atoms("Cu")}, " is a dict; an ase.Atoms or a list of them is needed"),
    (np.zeros([2, 3]), "[0] is a ndarray, not an ase.Atoms"),
    ([[Atoms("Cu")]], "[0] is a list, not an ase.Atoms"),
    ([Atoms("Cu"), "Cu"], "[1] is a str, not an ase.Atoms"),
    ([Atoms("Cu"), Atoms()], "[1] has no atoms"),
    (
        broken(positions=np.zeros([3, 3])),
        "[0] has positions of shape (3, 3) and type float64; [2, 3",
    ),
    (broken(positions=np.zeros([2, 2])), "[0] has positions of shape (2, 2)"),
    (
        broken(positions=np.zeros([2, 3], complex)),
        "[0] has positions of shape (2, 3) and type comp",
    ),
    (
        broken(positions=np.full([2, 3], "a")),
        "[0] has positions of shape (2, 3) and type <U1; [2, 3",
    ),
    (broken(positions=np.full([2, 3], np.nan)), "[0] has positions that are not finite"),
    (broken(numbers=np.array([29, 0])), "[0] holds dummy atoms (atomic number 0)"),
    (broken(numbers=np.array([29, -29])), "[0] holds atomic number -29; 1 to 118 are elements"),
    (broken(numbers=np.array([29, 119])), "[0] holds atomic number 119; 1 to 118 are elements"),
    (broken(numbers=np.array([29, 28.5])), "[0] holds atomic number 28.5; 1 to 118 are elements"),
    (broken(numbers=np.array([29])), "[0] has positions of shape (2, 3) and type float64; [1, 3"),
    ([Atoms("Cu"), Atoms("CuPtH")], "[1] holds H, Pt; the descriptor's species are Cu, Au"),
    (Atoms("Cu", pbc=True), "[0] is periodic along an axis without a cell vector"),
    (Atoms("Cu", cell=[3, 3, 0], pbc=True), "[0] is periodic along an axis without a cell vector"),
    (Atoms("Cu", cell=[3, 0, 3], pbc=[0, 1, 0]), "[0] is periodic along an axis without a cell ve"),
    (Atoms("Cu", cell=[3, 3, np.inf]), "[0] has a cell that is not finite"),
    (
        Atoms("Cu", cell=FLAT, pbc=True),
        "[0] is periodic in a cell of volume 0 Å³; its vectors must",
    ),
    (Atoms("Cu", cell=[1e-3] * 3, pbc=True), "[0] is periodic in a cell of volume 1e-09 Å³; its "),
    (Atoms("Cu", cell=[3] * 3, pbc=True), "[0] is periodic; the descriptor is for clusters only"),
    (Atoms("Cu", cell=[3, 0, 0], pbc=[1, 0, 0]), "[0] is periodic; the descriptor is for clusters"),
]


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(Evaluator, "__call__", lambda *_: pytest.fail("computation has begun"))
    monkeypatch.setattr(StructureBatch, "from_ase", lambda *_, **__: pytest.fail("has begun"))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("given", "message"), STRUCTURES)
def test_structures_into_create(given, message):
    acsf = ACSF(["Cu", "Au"], 4.0)
    assert refusal(acsf.create, given).startswith("system" + message)
    assert refusal(Fingerprint(acsf).create, given).startswith("structures" + message)
    # A user's descriptor checks nothing itself.
    own = small.PairHistogram(["Cu", "Au"], 4.0, 1.0)
    assert refusal(Fingerprint(own).create, given).startswith("structures" + message)


def test_sound_structures_pass():
    """What looks odd and is not."""
    acsf = ACSF(["Cu"], 4.0, periodic=True)
    for atoms in (
        Atoms("Cu"),
        Atoms("Cu2", [[0, 0, 0], [1, 0, 0]], cell=FLAT),  # a cell that nobody looks at
        Atoms("Cu", cell=[[0, 3, 0], [3, 0, 0], [0, 0, 3]], pbc=True),  # left-handed
        Atoms("Cu", cell=[3, 0, 0], pbc=[True, False, False]),
        Atoms("Cu2", [[0, 0, 0], [50, 50, 50]], cell=[3, 3, 3], pbc=True),  # outside of the cell
        Atoms("Cu2", np.array([[0, 0, 0], [2, 0, 0]], np.float32)),
    ):
        assert np.isfinite(acsf.create(atoms)).all()


FITTING = {
    "positions": np.zeros([4, 2, 3]),
    "numbers": np.full([4, 2], 29, np.int32),
    "cell": np.zeros([4, 3, 3]),
    "pbc": np.zeros([4, 3], bool),
    "index": np.full([4, 2, 8], -1, np.int32),
    "shift": np.zeros([4, 2, 8, 3]),
}
MISFITS = [
    (
        {"positions": np.zeros([2, 3])},
        "positions has shape (2, 3); [batch, atoms, 3] is needed",
    ),
    ({"positions": np.zeros([1, 4, 2, 3])}, "positions has shape (1, 4, 2, 3); [batch, atoms"),
    ({"positions": np.zeros([4, 2, 2])}, "positions has shape (4, 2, 2); [4, 2, 3] is needed"),
    (
        {"positions": np.zeros([4, 2, 3], int)},
        "positions are int64; float32 or float64 is need",
    ),
    ({"positions": np.zeros([4, 2, 3], np.float16)}, "positions are float16; float32 or float"),
    ({"positions": np.zeros([4, 2, 3], np.float32)}, "cell is float64; float32 is needed"),
    ({"numbers": np.zeros([4], np.int32)}, "numbers has shape (4,); [4, 2] is needed"),
    ({"numbers": np.zeros([4, 3], np.int32)}, "numbers has shape (4, 3); [4, 2] is needed"),
    ({"numbers": np.zeros([3, 2], np.int32)}, "numbers has shape (3, 2); [4, 2] is needed"),
    ({"numbers": np.zeros([1, 2], np.int32)}, "numbers has shape (1, 2); [4, 2] is needed"),
    ({"numbers": np.full([4, 2], 29.0)}, "numbers is float64; int32 is needed"),
    ({"cell": np.zeros([3, 3])}, "cell has shape (3, 3); [4, 3, 3] is needed"),
    ({"cell": np.zeros([1, 3, 3])}, "cell has shape (1, 3, 3); [4, 3, 3] is needed"),
    ({"cell": np.zeros([4, 3, 3], np.float32)}, "cell is float32; float64 is needed"),
    ({"pbc": np.zeros([3], bool)}, "pbc has shape (3,); [4, 3] is needed"),
    ({"pbc": np.zeros([4, 3])}, "pbc is float64; bool is needed"),
    ({"index": np.zeros([4, 8], np.int32)}, "neighbours.index has shape (4, 8); [4, 2, neigh"),
    (
        {"shift": np.zeros([4, 2, 7, 3])},
        "neighbours.shift has shape (4, 2, 7, 3); [4, 2, 8, 3]",
    ),
]


class TestBatches:
    def batch(self, **changed):
        parts = {k: tf.constant(v) for k, v in {**FITTING, **changed}.items()}
        neighbours = Neighbours(parts.pop("index"), parts.pop("shift"))
        return StructureBatch(**parts, neighbours=neighbours)

    def test_that_fit(self):
        check_batch(self.batch())

    @pytest.mark.parametrize(("changed", "message"), MISFITS, ids=[m[1][:24] for m in MISFITS])
    def test_that_do_not_fit(self, changed, message):
        batch = self.batch(**changed)
        acsf = ACSF(["Cu"], 4.0, g2_params=[[1.0, 2.0]], g5_params=[[0.1, 1, 1]])
        for compute in (acsf, Fingerprint(acsf)):
            assert refusal(compute, batch).startswith(message)
            # In a graph and under XLA while they are traced, with TensorFlow's words around it.
            for jit in (None, True):
                assert message in refusal(tf.function(compute, jit_compile=jit), batch)

    @pytest.mark.parametrize("given", [None, np.zeros([1, 2, 3]), Atoms("Cu"), [Atoms("Cu")]])
    def test_that_are_none(self, given):
        acsf = ACSF(["Cu"], 4.0)
        wanted = f"batch is a {type(given).__name__}; a StructureBatch is needed"
        assert refusal(acsf, given) == refusal(Fingerprint(acsf), given) == wanted

    def test_of_unknown_shape_pass(self):
        acsf = ACSF(["Cu"], 4.0)

        @tf.function(
            input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, None], tf.int32)]
        )
        def compute(positions, numbers):
            return acsf(StructureBatch.of_clusters(positions, numbers))

        positions = tf.constant([[[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]])
        assert compute(positions, tf.fill([1, 2], 29)).shape == (1, 2, 1)

    def test_from_ase(self):
        assert "structures is empty" in refusal(StructureBatch.from_ase, [], r_cut=3.0)
        too_small = refusal(StructureBatch.from_ase, [Atoms("Cu2")], r_cut=3.0, atoms=1)
        assert too_small == "atoms is 1; the largest structure has 2"


class TestFingerprints:
    acsf = ACSF(["Cu"], 4.0)

    @pytest.mark.parametrize("descriptor", [None, "ACSF", ACSF, {"species": ["Cu"]}, len])
    def test_descriptors(self, descriptor):
        message = refusal(Fingerprint, descriptor)
        assert message.startswith(f"descriptor is {descriptor!r}; an object with species, r_cut")

    @pytest.mark.parametrize(
        "pooling", [None, 5, [], [None], [["max"]], ("max", "max"), "sum", ["mean", "MEAN"]]
    )
    def test_poolings(self, pooling):
        message = refusal(Fingerprint, self.acsf, pooling)
        assert message.startswith("pooling is ")
        allowed = "max, min, mean, std, moment3, covariance"
        assert message.endswith(f"; allowed are {allowed}, each once")

    @pytest.mark.parametrize("per_species", [None, "yes", 1, [True]])
    def test_per_species(self, per_species):
        message = refusal(Fingerprint, self.acsf, per_species=per_species)
        assert message == f"per_species is {per_species!r}; True or False is needed"

    @pytest.mark.parametrize("name", [None, "soap", 3, ["default"], "Default"])
    def test_presets(self, name):
        wanted = f"preset is {name!r}; allowed are fung2022, default"
        assert refusal(Fingerprint.preset, name) == wanted

    @pytest.mark.parametrize("name", ["fung2022", "default"])
    @pytest.mark.parametrize(
        ("species", "message"),
        [
            ("Pt", "species is 'Pt'; a list of elements like ['Pt'] is needed"),
            (None, "species is None; a list of elements"),
            ([], "species is []; at least one element"),
            (["Pl"], "species holds 'Pl', which is not a chemical element"),
            (["Pt", "Pt"], "species is ['Pt', 'Pt']; at least one element, none twice"),
        ],
    )
    def test_species_of_presets(self, name, species, message):
        assert refusal(Fingerprint.preset, name, species).startswith(message)
