from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from hypothesis import given
from hypothesis import strategies as st

from tfgen.datasets.storage import Dataset
from tfgen.evaluation.evaluate import evaluate
from tfgen.evaluation.results import (
    Acceptance,
    Basin,
    Coverage,
    HitTolerance,
    Shares,
    VerifiedHits,
)
from tfgen.evaluation.settings import EvaluationSettings
from tfgen.evaluation.structure_results import Nearest
from tfgen.warnings import TfgenWarning

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8)
LOW, RANGE = "energy_per_atom=0.7", "energy_per_atom=0.75:0.85"


def tetrahedron(edge: float, **info) -> Atoms:
    return Atoms("Pt4", positions=edge * CORNERS, info=info)


def moved(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The same structure: turned or mirrored, shifted, atoms in another order, same record."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order, shift = rng.permutation(len(atoms)), rng.normal(size=3)
    copy = atoms[order]
    copy.info = dict(atoms.info)
    copy.positions = copy.positions @ rotation + shift
    if "reconstructed_positions" in atoms.arrays:
        raw = atoms.arrays["reconstructed_positions"][order] @ rotation + shift
        copy.arrays["reconstructed_positions"] = raw
    return copy


def data(**extra) -> Dataset:
    """Four tetrahedra for training, one for validation; energy 0.5, 0.6, ..."""
    structures = [tetrahedron(edge) for edge in (2.5, 2.6, 2.7, 2.8, 2.9)]
    properties = {"energy_per_atom": np.array([0.5, 0.6, 0.7, 0.8, 0.9]), **extra}
    units = dict.fromkeys(properties, "1") | {"energy_per_atom": "eV/atom"}
    split = np.array([0, 0, 0, 0, 1], np.int8)
    return Dataset(structures, properties, units, split, {"name": "four"})


def record(target, relaxed: float, reconstructed: float | None = None, **more) -> dict:
    return {
        "target": {"energy_per_atom": target},
        "decoded": {"energy_per_atom": 0.7},
        "reconstructed": {} if reconstructed is None else {"energy_per_atom": reconstructed},
        "relaxed": {"energy_per_atom": relaxed},
        "fingerprint_loss": 0.1,
        "status": "converged",
        **more,
    }


def generated() -> list[Atoms]:
    span = [0.75, 0.85]
    structures = [
        tetrahedron(2.7, **record(0.7, 0.705, 0.70, seconds=1.0)),  # in the training set
        tetrahedron(2.7, **record(0.7, 0.720, 0.70, seconds=3.0)),  # the same again
        tetrahedron(3.0, **record(0.7, 0.690, 0.75)),  # new, and just a hit
        tetrahedron(1.0, **record(0.7, 0.700, 0.70, status="overlapping atoms")),
        tetrahedron(2.9, **record(span, 0.750)),  # new: validation is not training
        tetrahedron(2.7, **record(span, 0.800)),
        tetrahedron(2.8, **record(span, 0.950)),
    ]
    structures[1] = moved(structures[1], np.random.default_rng(0))
    structures[5].positions[0] += 9.0  # a fragment apart
    # The first one was a heap of atoms before it was relaxed.
    structures[0].arrays["reconstructed_positions"] = 0.2 * structures[0].positions
    return structures


def test_every_number_of_the_file_by_hand():
    metrics = evaluate(generated(), data()).to_json()
    assert metrics["count"] == 7
    assert metrics["validity"] == pytest.approx(5 / 7)
    assert metrics["uniqueness"] == pytest.approx(4 / 5)
    assert metrics["novelty"] == pytest.approx(2 / 4)
    # As reconstructed the first one is not valid, so the second is the first of its kind.
    assert metrics["raw"] == pytest.approx({"validity": 4 / 7, "uniqueness": 1.0, "novelty": 2 / 4})
    assert metrics["hit_rate"] == {
        "decoded": {LOW: None, RANGE: None},  # nothing is calculated
        # Of 0.70, 0.70, 0.75, 0.70 the first and last belong to structures that are not valid.
        "reconstructed": {LOW: 0.25, RANGE: None},
        "relaxed": {LOW: 0.5, RANGE: pytest.approx(1 / 3)},
    }
    mae, bias = (
        {
            stage: {label: errors["energy_per_atom"] for label, errors in labels.items()}
            for stage, labels in metrics[measure].items()
            if stage != "decoded"
        }
        for measure in ("mae", "bias")
    )
    guessed = metrics["surrogate"]
    assert guessed["hit_rate"]["decoded"] == {LOW: 1.0, RANGE: 0.0}
    assert guessed["hit_rate"]["relaxed"] == {LOW: None, RANGE: None}
    for measure, wanted in (("mae", 0.05), ("bias", -0.05)):
        found = {k: v["energy_per_atom"] for k, v in guessed[measure]["decoded"].items()}
        assert found == pytest.approx({LOW: 0.0, RANGE: wanted})
    assert metrics["evaluated_by"] == {"energy_per_atom": "file"}
    assert mae["reconstructed"] == {LOW: pytest.approx(0.05 / 2), RANGE: None}
    assert mae["relaxed"] == pytest.approx({LOW: 0.035 / 3, RANGE: 0.1 / 2})
    assert bias["relaxed"] == pytest.approx({LOW: 0.015 / 3, RANGE: 0.1 / 2})
    assert metrics["baseline"]["hit_rate"] == {LOW: 0.25, RANGE: 0.25}
    assert metrics["baseline"]["mae"][LOW]["energy_per_atom"] == pytest.approx(0.4 / 4)
    assert metrics["baseline"]["mae"][RANGE]["energy_per_atom"] == pytest.approx(0.45 / 4)
    assert metrics["status"] == {"converged": 6, "overlapping atoms": 1}
    assert metrics["seconds_per_structure"] == 2.0
    assert metrics["training_structures"] == 4
    assert metrics["thresholds"] == {
        "overlap_factor": 0.7,
        "bond_factor": 1.3,
        "training_pass_rate": 1.0,
        "duplicate_tolerance": 0.05,
        "duplicate_tolerance_unit": "Å",
        "basin_rmsd": 0.25,
        "basin_rmsd_unit": "Å",
        "hit_tolerance": {"energy_per_atom": {"value": 0.01, "unit": "eV/atom"}},
    }
    rows = metrics["structures"]
    assert [row["valid"] for row in rows] == [True, True, True, False, True, False, True]
    assert [row["unique"] for row in rows] == [True, False, True, None, True, None, True]
    assert [row["novel"] for row in rows] == [False, False, True, None, True, None, False]
    assert [row["hit"] for row in rows] == [True, False, True, False, True, False, False]
    assert [row["verified"] for row in rows] == [False, False, True, False, True, False, False]
    unknown = dict.fromkeys(
        ("calculations", "calculations_per_hit", "proposed", "proposed_per_hit")
    )
    assert metrics["verified"] == {"hits": 2, "share": 2 / 7, **unknown}
    assert [row["nearest"] and row["nearest"]["index"] for row in rows] == [
        2,
        2,
        3,
        None,
        3,
        None,
        3,
    ]
    assert rows[2]["nearest"]["distance"] == pytest.approx(0.2)
    # What was a heap before it was relaxed did not lie at any minimum, but that is no matter of Å.
    assert metrics["basin"] == {"share": None, "count": 0, "median_rmsd": None}
    assert metrics["coverage"] == {"share": None, "found": 0, "count": 0}
    assert metrics["acceptance"] is None
    by_target = [
        (t["count"], t["validity"], t["uniqueness"], t["novelty"]) for t in metrics["targets"]
    ]
    assert by_target == [(4, 3 / 4, 2 / 3, 1 / 2), (3, 2 / 3, 1.0, 1 / 2)]


def test_basins():
    structures = [tetrahedron(2.7) for _ in range(4)]
    reach = np.linalg.norm(2.7 * CORNERS[0])
    # Growing by a factor moves each corner by the same length.
    for atoms, length in zip(structures, (0.24, 0.26, 0.1), strict=False):  # the last has none
        raw = tetrahedron(2.7 * (1 + length / reach))
        raw.rotate(70, (1, 2, 3))
        atoms.arrays["reconstructed_positions"] = raw.positions + 4.0
    metrics = evaluate(structures, data())
    found = [row.basin_rmsd for row in metrics.structures]
    assert found[:3] == pytest.approx([0.24, 0.26, 0.1], abs=1e-3)
    assert found[3] is None  # it was never relaxed
    median = pytest.approx(0.24, abs=1e-3)
    assert metrics.basin == Basin(share=2 / 3, count=3, median_rmsd=median)
    wide = evaluate(structures, data(), settings=EvaluationSettings(basin_rmsd=0.3))
    assert wide.basin == Basin(share=1.0, count=3, median_rmsd=median)
    assert wide.thresholds.basin_rmsd == 0.3


def test_coverage_is_of_the_test_split():
    dataset = data()
    dataset.split[:] = [0, 0, 2, 2, 1]
    gold = Dataset(
        [*dataset.structures, Atoms("Au4", positions=2.9 * CORNERS)],
        {"energy_per_atom": np.arange(6.0)},
        {"energy_per_atom": "eV/atom"},
        np.array([*dataset.split, 2]),
    )
    structures = [tetrahedron(2.7), tetrahedron(2.71), tetrahedron(2.5), tetrahedron(9.0)]
    for known in (dataset, gold):  # nobody asked for gold
        metrics = evaluate(structures, known)
        assert metrics.coverage == Coverage(share=0.5, found=1, count=2)
    # 2.7 is in the test split, so it is new; its nearest in the training split is 2.6.
    row = metrics.structures[0]
    assert row.novel is True
    assert row.nearest == Nearest(index=1, distance=pytest.approx(0.1))


def test_the_cost_of_hits():
    structures = [
        tetrahedron(3.0, **record(0.7, 0.7, candidates=4, calculations=90, proposed=8)),
        tetrahedron(3.1, **record(0.7, 0.9, candidates=10, calculations=110, proposed=7)),
        # A hit, but in the training set.
        tetrahedron(2.7, **record(0.7, 0.7, candidates=1, calculations=10, proposed=0)),
        tetrahedron(3.2, **record(0.7, 0.7, calculations=0, proposed=6)),
    ]
    metrics = evaluate(structures, data())
    assert metrics.verified == VerifiedHits(
        hits=2,
        share=0.5,
        calculations=210,
        calculations_per_hit=105.0,
        proposed=21,
        proposed_per_hit=10.5,
    )
    assert metrics.acceptance == Acceptance(accepted=2, candidates=15, rate=2 / 15)
    nothing = evaluate(structures[1:2], data())
    assert nothing.verified.calculations_per_hit is None
    assert nothing.acceptance.rate == 0.0
    del structures[1].info["proposed"]  # then the total is not known
    partly = evaluate(structures, data()).verified
    assert (partly.proposed, partly.calculations) == (None, 210)


def test_hits_without_relaxation():
    raw = {"energy_per_atom": 0.7}
    one = tetrahedron(3.0, target={"energy_per_atom": 0.7}, reconstructed=raw)
    metrics = evaluate([one], data())
    assert metrics.structures[0].hit is True
    assert metrics.structures[0].verified is None
    assert metrics.verified is None


def test_metrics_are_json_and_repeat_themselves():
    text = json.dumps(evaluate(generated(), data()).to_json(), allow_nan=False)
    assert text == json.dumps(evaluate(generated(), data()).to_json())


@given(seed=st.integers(0, 10_000))
def test_metrics_do_not_see_how_a_structure_lies(seed):
    rng = np.random.default_rng(seed)
    turned = [moved(atoms, rng) for atoms in generated()]
    one, two = evaluate(turned, data()).to_json(), evaluate(generated(), data()).to_json()
    for row, same in zip(one["structures"], two["structures"], strict=True):
        if row["nearest"]:
            distance = same["nearest"].pop("distance")
            assert row["nearest"].pop("distance") == pytest.approx(distance, abs=1e-9)
    assert one == two


@given(seed=st.integers(0, 10_000))
def test_shares_do_not_see_the_order_of_the_structures(seed):
    order = np.random.default_rng(seed).permutation(7)
    mixed = evaluate([generated()[k] for k in order], data())
    straight = evaluate(generated(), data())
    assert (mixed.shares, mixed.raw) == (straight.shares, straight.raw)
    assert mixed.status == straight.status
    by_label = {target.label: target for target in mixed.targets}
    for target in straight.targets:
        same = by_label[target.label]
        assert same.baseline == target.baseline
        for stage, found in target.stages.items():
            assert same.stages[stage].hit_rate == found.hit_rate


def test_the_generated_structures_are_left_alone():
    structures = generated()
    before = [(a.positions.copy(), json.dumps(a.info)) for a in structures]
    evaluate(structures, data())
    for atoms, (positions, info) in zip(structures, before, strict=True):
        np.testing.assert_array_equal(atoms.positions, positions)
        assert json.dumps(atoms.info) == info


def test_structures_without_records():
    metrics = evaluate([tetrahedron(2.7), tetrahedron(3.1)], data())
    assert metrics.shares == Shares(validity=1.0, uniqueness=1.0, novelty=0.5)
    assert metrics.to_json()["hit_rate"] == {"decoded": {}, "reconstructed": {}, "relaxed": {}}
    assert metrics.targets == ()
    assert metrics.raw is None
    assert metrics.seconds_per_structure is None
    assert metrics.status == {"not recorded": 2}


@pytest.mark.parametrize(
    "bad",
    [tetrahedron(1.0), tetrahedron(9.0), tetrahedron(np.nan), Atoms()],
    ids=["overlap", "in pieces", "NaN", "no atoms"],
)
def test_nothing_valid(bad):
    bad.info = record(0.7, 0.7)
    metrics = evaluate([bad, bad.copy()], data())
    assert metrics.shares == Shares(validity=0.0, uniqueness=None, novelty=None)
    (target,) = metrics.targets
    assert target.relaxed.hit_rate == 0.0  # what failed is a miss
    assert target.relaxed.mae == {"energy_per_atom": None}
    json.dumps(metrics.to_json(), allow_nan=False)


def test_a_composition_the_data_set_lacks():
    gold = Atoms("Au4", positions=2.9 * CORNERS, info=record(0.7, 0.7))
    metrics = evaluate([gold], data())
    assert metrics.shares.novelty == 1.0
    (target,) = metrics.targets
    assert target.relaxed.hit_rate == 1.0
    assert (target.baseline.hit_rate, target.baseline.count) == (None, 0)


def test_the_baseline_is_of_the_same_composition():
    structures = [*data().structures, Atoms("Au4", positions=2.9 * CORNERS)]
    both = Dataset(
        structures,
        {"energy_per_atom": np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.7])},
        {"energy_per_atom": "eV/atom"},
        np.array([0, 0, 0, 0, 1, 0]),
    )
    assert evaluate(generated(), both).targets[0].baseline.hit_rate == 1 / 4
    gold = Atoms("Au4", positions=3.0 * CORNERS, info=record(0.7, 0.7))
    assert evaluate([gold], both).targets[0].baseline.hit_rate == 1.0


def test_several_properties_must_all_hit():
    target = {"energy_per_atom": 0.7, "size": [2.0, 3.0]}
    structures = [
        tetrahedron(2.7, target=target, relaxed={"energy_per_atom": 0.7, "size": size})
        for size in (2.5, 3.5)
    ]
    structures.append(tetrahedron(2.8, target=target, relaxed={"energy_per_atom": 0.7}))
    metrics = evaluate(structures, data(size=np.array([1.0, 2.0, 3.0, 4.0, 5.0])))
    (found,) = metrics.targets
    assert found.label == "energy_per_atom=0.7,size=2.0:3.0"
    assert found.relaxed.hit_rate == pytest.approx(1 / 3)
    assert found.relaxed.mae == pytest.approx({"energy_per_atom": 0.0, "size": 0.25})
    assert found.baseline.hit_rate == 0.25


def test_one_target_whatever_the_order_of_its_properties():
    one = tetrahedron(2.7, target={"a": 1.0, "b": [0, 1]})
    other = tetrahedron(2.8, target={"b": [0.0, 1.0], "a": 1})
    metrics = evaluate([one, other], data(), settings=EvaluationSettings(hit_tolerance={"a": 0.1}))
    assert [(t.label, t.count) for t in metrics.targets] == [("a=1.0,b=0.0:1.0", 2)]


def test_tolerances():
    dataset = data(size=np.array([1.0, 2.0, 3.0, 5.0, 9.0]))
    structure = tetrahedron(2.7, target={"size": 2.0}, relaxed={"size": 2.21})
    metrics = evaluate([structure], dataset)  # 5 % of the training range, 4
    assert metrics.thresholds.hit_tolerance == {"size": HitTolerance(value=0.2, unit="1")}
    assert metrics.targets[0].relaxed.hit_rate == 0.0
    settings = EvaluationSettings(hit_tolerance={"size": 0.22})
    metrics = evaluate([structure], dataset, settings=settings)
    assert metrics.thresholds.hit_tolerance["size"].value == 0.22
    assert metrics.targets[0].relaxed.hit_rate == 1.0
    # Rounding does not turn the end of the tolerance into a miss.
    edge = tetrahedron(2.7, **record(0.75, 0.76))
    assert evaluate([edge], data()).targets[0].relaxed.hit_rate == 1.0


def test_duplicate_tolerance():
    pair = [tetrahedron(3.00), tetrahedron(3.08)]
    assert evaluate(pair, data()).shares.uniqueness == 1.0
    wide = EvaluationSettings(duplicate_tolerance=0.1)
    assert evaluate(pair, data(), settings=wide).shares.uniqueness == 0.5


def test_validity_factors_are_settings():
    """The radius of platinum is 1.36 Å: 2.6 Å are 0.96 sums of radii, 3.5 Å are 1.29."""
    pair = [tetrahedron(2.6), tetrahedron(3.5)]
    strict = {"overlap_factor": 0.9, "bond_factor": 1.2}
    assert evaluate(pair, data()).shares.validity == 1.0
    metrics = evaluate(pair, data(), settings=EvaluationSettings(**strict))
    assert metrics.shares.validity == 0.5
    assert metrics.thresholds.overlap_factor == 0.9
    # The shortest edge in training, 2.5 Å, is 0.919 sums of radii, the longest 1.029.
    tight = EvaluationSettings(overlap_factor=0.98, bond_factor=1.01, pass_rate=1.0)
    limits = evaluate(pair, data(), settings=tight).thresholds
    assert (limits.overlap_factor, limits.bond_factor) == (0.919, 1.03)
    assert limits.training_pass_rate == 1.0
    half = EvaluationSettings(overlap_factor=0.98, bond_factor=1.01, pass_rate=0.5)
    assert evaluate(pair, data(), settings=half).thresholds.training_pass_rate == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"duplicate_tolerance": 0}, "duplicate_tolerance is 0; a number above 0"),
        ({"duplicate_tolerance": np.nan}, "duplicate_tolerance is nan"),
        ({"basin_rmsd": -1.0}, "basin_rmsd is -1.0; a number above 0"),
        ({"hit_tolerance": {"energy_per_atom": -1.0}}, "hit_tolerance of energy_per_atom is -1.0"),
        ({"hit_tolerance": 0.1}, "hit_tolerance is 0.1; a mapping"),
        ({"overlap_factor": -0.1}, "overlap_factor is -0.1; a number >= 0"),
        ({"bond_factor": 0.5}, "bond_factor is 0.5; a number above 0.7"),
        ({"pass_rate": 1.5}, "pass_rate is 1.5; a number from 0 to 1"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**values)


def test_metrics_say_what_they_are_in_a_line():
    text = repr(evaluate(generated(), data()))
    assert text.startswith("Metrics(count=7, ")
    assert len(text) < 150


def test_periodic_structures():
    crystal = bulk("Pt", cubic=True)
    wide = crystal.copy()
    wide.set_cell(crystal.cell * 1.05, scale_atoms=True)
    dataset = Dataset([crystal], {"e": np.zeros(1)}, {"e": "eV"}, np.zeros(1))
    metrics = evaluate([crystal.copy(), wide], dataset)
    assert metrics.shares == Shares(validity=1.0, uniqueness=1.0, novelty=0.5)


def only_validation() -> Dataset:
    return Dataset([tetrahedron(2.7)], {"e": np.zeros(1)}, {"e": "eV"}, np.array([1]))


ONE = [tetrahedron(2.7)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate([], data()), "generated is not a list with at least one structure"),
        (lambda: evaluate(ONE[0], data()), "generated is not a list"),
        (lambda: evaluate([ONE[0], "Pt4"], data()), r"generated\[1\] is a str"),
        (lambda: evaluate(ONE, only_validation()), "no training structures"),
        (
            lambda: evaluate(ONE, data(), settings=EvaluationSettings(hit_tolerance={"gap": 1.0})),
            "a hit tolerance is given for 'gap', which is no property of the targets .none. or",
        ),
        (
            lambda: evaluate([tetrahedron(2.7, target={"gap": 1.0})], data()),
            "target property 'gap' is not in the data set .*; give its hit tolerance",
        ),
        (
            lambda: evaluate([*ONE, tetrahedron(2.7, target="high")], data()),
            "structure 1: target is 'high'",
        ),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("more", "verified"),
    [
        ({}, True),
        ({"evaluated_by": {"energy_per_atom": "emt"}}, True),
        ({"evaluated_by": {"energy_per_atom": "surrogate"}}, None),
        ({"status": "relaxation not converged"}, False),
    ],
)
def test_verified_is_what_was_calculated_and_converged(more, verified):
    atoms = tetrahedron(3.3, **record(0.7, 0.7, **more))
    (row,) = evaluate([atoms], data()).structures
    assert (row.hit is None) == (verified is None)
    assert row.verified is verified


def test_where_every_relaxation_failed_nothing_is_a_hit():
    """Not even what was on target before it was to be relaxed."""
    told = record(0.7, 0.0, 0.7, status="time limit", candidates=3)
    told["relaxed"] = {"energy_per_atom": None}
    atoms = tetrahedron(3.3, **told)
    atoms.arrays["reconstructed_positions"] = atoms.positions.copy()
    metrics = evaluate([atoms], data())
    (row,) = metrics.structures
    assert (row.hit, row.verified) == (False, False)
    assert metrics.verified.hits == metrics.acceptance.accepted == 0
    assert metrics.basin.count == 0  # it did not stay near a minimum: it never moved


def test_who_evaluated_is_not_guessed():
    atoms = tetrahedron(3.3, **record(0.7, 0.7, evaluated_by="surrogate"))
    with pytest.raises(ValueError, match="evaluated_by is 'surrogate', not a mapping"):
        evaluate([atoms], data())


class Shifted(LennardJones):
    """An energy that nobody else has."""

    implemented_properties = (*LennardJones.implemented_properties, "dipole")

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["energy"] = 4 * 0.705
        self.results["dipole"] = np.array([0.0, 0.6, 0.8])


class TestRecalculation:
    """Values of the file are calculated again."""

    def test_new_values_count(self):
        guessed = record(0.7, 0.9, 0.7, evaluated_by={"energy_per_atom": "surrogate"})
        structures = [tetrahedron(3.3, **guessed), tetrahedron(3.0, **guessed)]
        assert evaluate(structures, data()).targets[0].relaxed.hit_rate is None
        metrics = evaluate(structures, data(), potential=Shifted(), compute={"edge": edge})
        assert metrics.targets[0].relaxed.hit_rate == 1.0
        # What the network said before relaxation does not become a calculated value.
        assert metrics.targets[0].reconstructed.hit_rate is None
        source = f"{__name__}:Shifted"
        assert metrics.evaluated_by["energy_per_atom"] == source
        assert metrics.evaluated_by["edge"] == f"{__name__}:edge"
        for row, length in zip(metrics.structures, (3.3, 3.0), strict=True):
            assert row.verified is True
            assert row.relaxed["energy_per_atom"] == pytest.approx(0.705)
            assert row.relaxed["edge"] == pytest.approx(length)
        assert structures[0].info["relaxed"] == {"energy_per_atom": 0.9}

    def test_differences_are_told(self):
        told = record(0.7, 0.7, evaluated_by={"energy_per_atom": "dft"})
        structures = [tetrahedron(3.3, **told), tetrahedron(3.0, **record(0.7, 0.9))]
        words = (
            "energy_per_atom of 1 of 2 structures differs from what the file says .* by 0.195 at"
        )
        with pytest.warns(TfgenWarning, match=words):
            evaluate(structures, data(), potential=Shifted())

    def test_own_properties_of_the_calculator(self):
        told = {"target": {"dipole": 1.0}, "relaxed": {"dipole": 1.0}, "status": "converged"}
        settings = EvaluationSettings(hit_tolerance={"dipole": 0.1})
        metrics = evaluate(
            [tetrahedron(3.3, **told)], data(), potential=Shifted(), settings=settings
        )
        assert metrics.evaluated_by["dipole"] == f"{__name__}:Shifted"
        assert metrics.structures[0].verified is True

    def test_the_same_name_in_another_unit_is_another_quantity(self):
        told = {"target": {"dipole": 1.0}, "relaxed": {"dipole": 4.8}, "status": "converged"}
        known = data(dipole=np.arange(5.0))
        known.units["dipole"] = "debye"
        metrics = evaluate([tetrahedron(3.3, **told)], known, potential=Shifted())
        assert metrics.evaluated_by["dipole"] == "file"
        assert metrics.structures[0].relaxed["dipole"] == 4.8

    def test_failures_are_statuses(self):
        structures = [tetrahedron(3.3, **record(0.7, 0.7)), tetrahedron(3.0, **record(0.7, 0.7))]
        with pytest.warns(TfgenWarning, match="failed for 1 of 2 .* edge: RuntimeError: too short"):
            metrics = evaluate(structures, data(), compute={"edge": fussy_edge})
        assert [row.status for row in metrics.structures] == ["converged", "property failed"]
        assert metrics.structures[1].relaxed["edge"] is None
        assert [row.verified for row in metrics.structures] == [True, False]

    def test_values_before_relaxation_are_of_who_computed_them(self):
        source = f"{__name__}:Shifted"
        for by, kept in ((source, 1.0), ("dft", None)):
            told = record(0.7, 0.705, 0.7, evaluated_by={"energy_per_atom": by})
            metrics = evaluate([tetrahedron(3.3, **told)], data(), potential=Shifted())
            assert metrics.targets[0].reconstructed.hit_rate == kept

    def test_mends_a_property_that_failed(self):
        told = record(0.7, 0.7, status="property failed", status_detail="edge: broken")
        told["relaxed"]["edge"] = None
        told["target"] = {"edge": 3.3}
        settings = EvaluationSettings(hit_tolerance={"edge": 0.01})
        atoms = tetrahedron(3.3, **told)
        assert evaluate([atoms], data(), settings=settings).structures[0].verified is False
        (row,) = evaluate([atoms], data(), compute={"edge": edge}, settings=settings).structures
        assert (row.status, row.status_detail, row.verified) == ("converged", None, True)

    def test_tolerances_are_those_of_the_request(self):
        told = record(0.7, 0.75, hit_tolerance={"energy_per_atom": 0.06})
        atoms = tetrahedron(3.3, **told)
        assert evaluate([atoms], data()).structures[0].verified is True
        settings = EvaluationSettings(hit_tolerance={"energy_per_atom": 0.04})
        assert evaluate([atoms], data(), settings=settings).structures[0].verified is False
        # Where records do not agree, the default counts.
        other = tetrahedron(3.0, **{**told, "hit_tolerance": {"energy_per_atom": 0.07}})
        assert evaluate([atoms, other], data()).structures[0].verified is False
        # Records of ranges have none.
        ranged = tetrahedron(3.0, **record([0.6, 0.8], 0.75))
        assert evaluate([atoms, ranged], data()).structures[0].verified is True


def edge(atoms: Atoms) -> float:
    return float(atoms.get_distance(0, 1))


def fussy_edge(atoms: Atoms) -> float:
    if edge(atoms) < 3.1:
        raise RuntimeError("too short")
    return edge(atoms)
