"""The names `tfgen.…`: typed for checkers and editors, and loaded only when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import tfgen

ROOT = Path(tfgen.__file__).parents[1]

# Each public function as a user calls it. Where a checker knew the names only as Any, or let any
# name pass, the lines that it has to refuse would be reported as needless "type: ignore".
SNIPPET = """
from __future__ import annotations

import ase
import numpy as np
import tfgen
from tfgen import NAMES


def everything(structures: list[ase.Atoms]) -> str:
    descriptor = tfgen.ACSF(species=["Pt"], r_cut=6.0, g2_params=[[1.0, 2.0]])
    fingerprint = tfgen.Fingerprint(descriptor, pooling=("mean", "std"))
    fingerprint = tfgen.Fingerprint.preset("fung2022", species=["Pt"])
    vectors: np.ndarray = fingerprint.create(structures)
    batch = tfgen.StructureBatch.from_ase(structures, r_cut=6.0)
    fingerprint(batch)
    tfgen.testing.check_descriptor(descriptor)
    tfgen.testing.check_fingerprint(fingerprint)
    search = tfgen.SearchSettings(patience=20, jit_compile=False)
    found: tfgen.ReconstructionResult = tfgen.reconstruct(
        fingerprint, vectors, "Pt13", seed=0, settings=search
    )
    status: list[tfgen.Status] = found.status
    relaxed: tfgen.RelaxationResult = tfgen.relax(found.structures, tfgen.EMT(), fmax=0.01)
    energies: dict[str, object] = tfgen.EMT().compute(relaxed.structures)
    xtb = tfgen.AsePotential.from_path("tblite.ase:TBLite", {"method": "GFN2-xTB"})
    tfgen.relax(found.structures, xtb, fmax=0.05)
    with tfgen.WorkerPotential("tblite.ase:TBLite", workers=2, time_limit=60.0) as potential:
        tfgen.relax(found.structures, potential, fmax=0.05)
    dataset: tfgen.Dataset = tfgen.build("recipe.toml", "pt13.h5", seed=0, workers=2)
    dataset = tfgen.Dataset.load("pt13.h5")
    model: tfgen.Model = tfgen.train(dataset, ["energy_per_atom"], fingerprint=fingerprint)
    cvae: tfgen.CVAE = model.cvae
    generated = tfgen.generate(model, "Pt13", {"energy_per_atom": 0.75}, 3, seed=1)
    proposals = tfgen.ProposalSettings(per_candidate=16)
    generation = tfgen.GenerationSettings(candidates=3, proposals=proposals)
    generated += tfgen.generate(
        model, "Pt13", {"energy_per_atom": (0.7, 0.8)}, 3, relax=False, settings=generation
    )
    first: ase.Atoms = generated[0]
    settings = tfgen.EvaluationSettings(hit_tolerance={"gap": 0.1}, duplicate_tolerance=0.1)
    metrics: tfgen.Metrics = tfgen.evaluate(generated, dataset, settings=settings)
    share: float | None = metrics.targets[0].relaxed.hit_rate
    tfgen.export(
        model, "saved_model", settings=tfgen.GraphSearchSettings(rounds=5), overwrite=True
    )
    if found.status[0] == tfgen.Status.CONVERGED:
        raise tfgen.TfgenWarning(f"{first}")
    return tfgen.__version__


tfgen.generated  # type: ignore[attr-defined]
tfgen.generate(1)  # type: ignore[call-arg, arg-type]
tfgen.train("pt13.h5")  # type: ignore[arg-type]
tfgen.relax(3)  # type: ignore[arg-type]
tfgen.Fingerprint.preset("default").sizes  # type: ignore[attr-defined]
"""


@pytest.mark.slow
def test_a_type_checker_follows_every_public_name(tmp_path):
    functions = [name for name in tfgen.__all__ if isinstance(getattr(tfgen, name), FunctionType)]
    assert "generate" in functions
    assert [name for name in functions if f"tfgen.{name}(" not in SNIPPET] == []
    snippet = SNIPPET.replace("NAMES", f"({', '.join(tfgen.__all__)})")
    (tmp_path / "snippet.py").write_text(snippet)
    options = ["--strict", "--follow-imports=silent", "--config-file="]
    options += ["--cache-dir", str(ROOT / ".mypy_cache" / "snippet")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(tmp_path / "snippet.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "", "MYPYPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_name_can_be_imported():
    for name in tfgen.__all__:
        assert getattr(tfgen, name) is not None
    assert dir(tfgen) == sorted(tfgen.__all__)
    assert tfgen.testing.check_descriptor.__module__ == "tfgen.testing.descriptors"
    with pytest.raises(AttributeError, match="module 'tfgen' has no attribute 'nothing'"):
        tfgen.nothing  # noqa: B018


QUICK = """
import sys

import tfgen

dir(tfgen), tfgen.TfgenWarning, tfgen.Status
loaded = {"tensorflow", "keras", "ase", "numpy", "scipy", "pydantic", "pytest"} & set(sys.modules)
assert not loaded, loaded
"""


def test_the_package_loads_nothing_by_itself():
    command = [sys.executable, "-c", QUICK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_module_needs_what_only_the_tests_need():
    """So `tfgen.testing` works in any test framework, or in none."""
    for path in (ROOT / "tfgen").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [getattr(node, "module", None) or ""] * isinstance(node, ast.ImportFrom)
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] not in {"pytest", "hypothesis", "dscribe"}, path


def test_the_package_is_marked_as_typed():
    assert (ROOT / "tfgen" / "py.typed").is_file()
