from __future__ import annotations

import json

import ase.io
import pytest
import small
from click.testing import CliRunner
from pages import FEW_FUNCTIONS, dataset, generated, tetrahedron, written

from tfgen.cli import main
from tfgen.evaluation.evaluate import evaluate
from tfgen.evaluation.report import write
from tfgen.evaluation.report.fingerprint_map import check_model
from tfgen.evaluation.report.write import write_report


def test_a_model_of_other_data_is_refused(tmp_path):
    structures, data = generated(2), dataset()
    metrics = evaluate(structures, data)
    with pytest.raises(ValueError, match="conditioned on radius_of_gyration, which the data set"):
        write_report(structures, data, metrics, tmp_path / "report", model=small.model())
    gold = [*structures, tetrahedron(2.9, "Au")]
    with pytest.raises(ValueError, match="the model's fingerprint knows Pt, not Au"):
        check_model(small.model(), gold, small.dataset())
    assert not (tmp_path / "report").exists()


def test_the_command_takes_a_model(tmp_path):
    ase.io.write(tmp_path / "out.extxyz", small.structures()[:4])
    small.dataset().save(tmp_path / "data.h5")
    small.model().save(tmp_path / "model")
    arguments = ["evaluate", "out.extxyz", "--dataset", "data.h5", "-o", "report", "--model"]
    arguments = [str(tmp_path / a) if "." in a or a == "report" else a for a in arguments]
    done = CliRunner().invoke(main, [*arguments, str(tmp_path / "model")])
    assert done.exit_code == 0, done.output
    assert "Latent space of the model" in (tmp_path / "report" / "index.html").read_text("utf-8")
    done = CliRunner().invoke(main, [*arguments, str(tmp_path / "none"), "--overwrite"])
    assert done.exit_code == 1
    assert "none' does not exist" in done.output


def test_a_report_repeats_itself(tmp_path):
    for name in ("one", "two"):
        written(tmp_path / name, generated(), dataset())
    for file in ("index.html", "metrics.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_overwriting(tmp_path):
    folder = tmp_path / "report"
    structures, data = generated(3), dataset()
    metrics = evaluate(structures, data)
    write_report(structures, data, metrics, folder, fingerprint=FEW_FUNCTIONS)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_report(structures, data, metrics, folder, fingerprint=FEW_FUNCTIONS)
    (folder / "metrics.json").write_text("old")
    write_report(structures, data, metrics, folder, overwrite=True, fingerprint=FEW_FUNCTIONS)
    assert json.loads((folder / "metrics.json").read_text("utf-8"))["count"] == 3


def test_only_a_report_is_overwritten(tmp_path):
    structures, data = generated(3), dataset()
    metrics = evaluate(structures, data)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="'thesis.tex', which tfgen has not put there"):
        write_report(structures, data, metrics, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        write_report(structures, data, metrics, tmp_path / "file", overwrite=True)


def test_a_failure_leaves_the_old_report_whole(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    structures, data = generated(3), dataset()
    metrics = evaluate(structures, data)
    write_report(structures, data, metrics, folder, fingerprint=FEW_FUNCTIONS)
    before = (folder / "index.html").read_bytes()

    def full(content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "render_page", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(structures, data, metrics, folder, overwrite=True, fingerprint=FEW_FUNCTIONS)
    assert (folder / "index.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_metrics_of_other_structures(tmp_path):
    metrics = evaluate(generated(3), dataset())
    with pytest.raises(ValueError, match="metrics is of 3 structures, not of these 4"):
        write_report(generated(4), dataset(), metrics, tmp_path / "report")
