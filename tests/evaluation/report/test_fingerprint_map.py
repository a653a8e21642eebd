from __future__ import annotations

import numpy as np
import small
from pages import Page, dataset, generated, written

from tfgen.evaluation.evaluate import evaluate
from tfgen.evaluation.report.fingerprint_map import compute_latents, project
from tfgen.evaluation.report.write import write_report


def test_the_map_of_fingerprints(tmp_path):
    page, _ = written(tmp_path / "report", generated(), dataset(), fingerprint=None)
    labels = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert labels.count("Map of structures, coloured by energy per atom (eV/atom)") == 1
    assert "given the model shows its latent space" in page.words()


def test_the_map_of_a_model(tmp_path):
    data, model = small.dataset(), small.model()
    structures = [atoms.copy() for atoms in data.structures[:6]]
    for atoms in structures[1:]:  # the first one has no record
        atoms.info["relaxed"] = {"energy_per_atom": 1.0}
    metrics = evaluate(structures, data)
    write_report(structures, data, metrics, tmp_path / "report", model=model)
    page = Page((tmp_path / "report" / "index.html").read_text("utf-8"))
    labels = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert sum(label.startswith("Map of structures") for label in labels) == 2
    assert "Latent space of the model" in page.words()


def test_latent_vectors_are_those_of_the_encoder():
    data, model = small.dataset(), small.model()
    some = [data.structures[k] for k in (0, 40, 3)]  # of two sizes
    table = np.column_stack([data.properties[name][[0, 40, 3]] for name in small.PROPERTIES])
    vectors = model.fingerprint.create(some)
    found = compute_latents(model, some, vectors, table)
    conditions = np.column_stack([table, [len(atoms) for atoms in some]])
    for k in range(3):
        alone = model.cvae.posterior(vectors[k : k + 1], conditions[k : k + 1]).mean()
        np.testing.assert_allclose(found[k], alone[0], rtol=1e-5, atol=1e-6)


def test_principal_axes_are_those_of_scaled_training():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(50, 1)) * [1.0, 2.0, 3.0] + 0.1 * rng.normal(size=(50, 3))
    known = np.hstack([known, np.full((50, 1), 5.0)])  # never varies
    made = known[:3] + np.array([0, 0, 0, 9.0])
    points, others, shares = project(known, made)
    scaled = (known - known.mean(axis=0))[:, :3] / known.std(axis=0)[:3]
    values = np.sort(np.linalg.eigvalsh(np.cov(scaled.T)))[::-1]
    np.testing.assert_allclose(shares, values[:2] / values.sum(), rtol=1e-6)
    np.testing.assert_allclose(points.var(axis=0, ddof=1), values[:2], rtol=1e-6)
    np.testing.assert_allclose(others, points[:3], atol=1e-9)
    for few in (known[:2], known[:, :1]):  # fewer axes than two
        points, others, shares = project(few, few[:1])
        assert points.shape == (len(few), 2)
        assert np.isfinite([*points.ravel(), *others.ravel(), *shares]).all()
