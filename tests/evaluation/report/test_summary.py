from __future__ import annotations

import re

from pages import dataset, generated

from tfgen.evaluation.evaluate import evaluate
from tfgen.evaluation.report.summary import summarise
from tfgen.evaluation.settings import EvaluationSettings


def test_a_terminal_shows_and_does_not_obey():
    structures = generated(1)
    structures[0].info["status"] = "\x1b[2J gone \n" + 100 * "x"
    structures[0].info["target"] = {"\x1b[31m": 1.0}
    settings = EvaluationSettings(hit_tolerance={"\x1b[31m": 1.0})
    text = summarise(evaluate(structures, dataset(), settings=settings))
    assert "\x1b" not in text
    assert "?[2J gone ?xx" in text
    assert 80 * "x" not in text


def test_summary_is_a_table():
    metrics = evaluate(generated(), dataset())
    lines = summarise(metrics).splitlines()
    assert lines[0] == "structures: 20, compared with 7 for training, 0.5 s a structure"
    assert max(map(len, lines)) <= 100
    row = next(line for line in lines if line.startswith("energy_per_atom 0.6"))
    target = metrics.targets[0]
    hits = [target.reconstructed.hit_rate, target.relaxed.hit_rate]
    assert [f"{100 * rate:.1f}" in row.split() for rate in hits] == [True, True]
    assert "energy_per_atom 0.75:0.85" in "\n".join(lines)
    assert "training: what structures sampled at random from the training set score" in lines
    # Numbers stand below the ends of their titles, for a target of several properties, too.
    structures = generated()
    for atoms in structures:
        atoms.info["target"]["size"] = 27.0
        atoms.info["relaxed"]["size"] = 26.5
    lines = summarise(evaluate(structures, dataset())).splitlines()
    titles = [line for line in lines if line.startswith("target ")]  # calculated, and guessed
    ends = [match.end() for line in titles for match in re.finditer(r"\S+", line)]
    for line in lines:
        if line.startswith(("energy_per_atom ", "size ")):
            name = re.match(r"\S+ \S+", line).end()
            cells = [m.end() for m in re.finditer(r"\S+( %)?", line) if m.start() >= name]
            assert set(cells) <= set(ends)
            assert len(cells) == (7 if line.startswith("energy") else 3)
