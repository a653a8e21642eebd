"""The paper's inversion against a plain loop over one target at a time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

SCRIPT = Path(__file__).parents[2] / "scripts" / "paper" / "paper_inversion.py"


@pytest.fixture(scope="module")
def paper():
    spec = importlib.util.spec_from_file_location("paper_inversion", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Waves:
    """A "fingerprint" with many local minima: 1 - cos 5x + x²/20 of each coordinate.

    It is never negative: for targets up to 0 the loss is smooth, and rounding decides no step.
    """

    def __init__(self, atoms):
        self.size = 3 * atoms

    def __call__(self, batch):
        x = tf.reshape(batch.positions, [-1, self.size])
        return 1 - tf.cos(5 * x) + x**2 / 20


def gradient_of(x, target):
    """Loss and gradient for `Waves`, by hand."""
    loss = (1 - np.cos(5 * x) + x**2 / 20 - target).mean()
    return loss, (5 * np.sin(5 * x) + x / 10) / x.size


def descend(x, target, rate, steps, patience, window, flat):
    """Adam with a rate that falls on plateaus, as torch.optim has both, step by step."""
    m = v = np.zeros_like(x)
    best, best_loss, lowest, waited, losses = x, np.inf, np.inf, 0, []
    for t in range(1, steps + 1):
        loss, g = gradient_of(x, target)
        losses.append(loss)
        if loss < best_loss:
            best, best_loss = x, loss
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        if loss < lowest * (1 - 1e-4):
            lowest, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            rate, waited = max(0.8 * rate, 1e-4), 0
        if best_loss < 5e-5:
            break
        if t > window and abs((losses[-1] - losses[-window]) / losses[-window]) < flat:
            break
    return best, best_loss, len(losses)


def reference(target, atoms, rng, box):
    best, best_loss, total = None, np.inf, 0
    for _ in range(2):
        x = rng.uniform(0, box, 3 * atoms)
        local, local_loss = None, np.inf
        for _ in range(10):
            found, loss, steps = descend(x, target, 0.2, 140, 15, 100, 1e-4)
            total += steps
            if loss < local_loss:
                local, local_loss = found, loss
            if local_loss < best_loss:
                best, best_loss = local, local_loss
            if local_loss < 1e-4:
                break
            x = local + rng.uniform(-1, 1, 3 * atoms)
        if local_loss < 1e-4:
            break
    found, loss, steps = descend(best, target, 0.04, 900, 20, 20, 1e-5)
    return found, min(loss, best_loss), total + steps


@pytest.mark.parametrize("patience", [0, 2])
def test_the_rate_falls_as_in_a_loop(paper, patience):
    settings = paper.Descent(rate=0.5, steps=80, patience=patience, window=100, flat=0.0)
    x = np.random.default_rng(2).uniform(-1, 1, [4, 1, 3])
    target = np.full(3, -0.2)
    found, loss, steps = paper._compiled(Waves(1))(
        x.astype(np.float32),
        targets=np.tile(target, (4, 1)).astype(np.float32),
        numbers=np.full([4, 1], 78, np.int32),
        active=np.array([True, True, True, False]),
        **paper._tensors(settings),
    )
    for i in range(3):
        best, best_loss, _ = descend(x[i].ravel(), target, *settings)
        np.testing.assert_allclose(found[i].numpy().ravel(), best, atol=1e-3)
        np.testing.assert_allclose(loss[i], best_loss, rtol=1e-4)
    assert steps.numpy().tolist() == [80, 80, 80, 0]


def test_the_batch_takes_the_steps_that_a_loop_takes(paper):
    atoms, box = 1, 3.0
    # Zero can be reached, if the hops get there; the others end where nothing more is gained.
    targets = np.repeat([[0.0], [-0.5], [0.0], [-3.0]], 3 * atoms, axis=1)
    found = paper.invert(Waves(atoms), targets, [78] * atoms, seed=7, box=box)
    assert found.positions.shape == (4, atoms, 3)
    for i, target in enumerate(targets):
        x, loss, steps = reference(target, atoms, np.random.default_rng([7, i]), box)
        np.testing.assert_allclose(found.positions[i].ravel(), x, atol=1e-2)
        np.testing.assert_allclose(found.loss[i], loss, rtol=1e-3, atol=1e-4)
        assert found.steps[i] == pytest.approx(steps, rel=0.01)
    assert found.loss.min() < 1e-4
    assert found.steps.min() < 2000
    assert 2 * 10 * 100 < found.steps.max() <= 2 * 10 * 140 + 900


def test_a_target_does_not_see_its_neighbours(paper):
    targets = np.repeat([[-0.1], [0.0]], 6, axis=1)
    both = paper.invert(Waves(2), targets, [78] * 2, seed=1, box=4.0)
    alone = paper.invert(Waves(2), targets[:1], [78] * 2, seed=1, box=4.0)
    np.testing.assert_allclose(alone.positions[0], both.positions[0], atol=1e-5)
    assert alone.steps[0] == both.steps[0]


def test_targets_of_the_wrong_shape_are_refused(paper):
    with pytest.raises(ValueError, match=r"targets has shape \(6,\); \[n, 6\] is needed"):
        paper.invert(Waves(2), np.zeros(6), [78, 78], seed=0)
