"""The contract: sound descriptors keep it, and each way of breaking it is told by name."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms

from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.structures.neighbours.displacements import cosine_cutoff, neighbourhood
from tfgen.testing._rules import RULES
from tfgen.testing.descriptors import check_descriptor, check_fingerprint

FUNCTIONS = {
    "g2_params": [[1.0, 2.5]],
    "g3_params": [1.0],
    "g4_params": [[0.02, 4, 1]],
    "g5_params": [[0.1, 1.5, -1]],
}
EVERY_POOLING = ("max", "min", "mean", "std", "moment3", "covariance")


class Sound:
    """Keeps every rule; the others here differ from it in one place."""

    def __init__(self, species, r_cut=5.0, width=1.0):
        self.species, self.r_cut, self.width = list(species), r_cut, width

    @property
    def size(self):
        return 3

    def get_config(self):
        return {"species": self.species, "r_cut": self.r_cut, "width": self.width}

    def near(self, batch):
        return neighbourhood(batch, self.r_cut)

    def fade(self, r):
        return cosine_cutoff(r, self.r_cut)

    def __call__(self, batch):
        near = self.near(batch)
        r = near.distances
        fade = tf.where(near.mask, self.fade(r), tf.zeros_like(r))
        centres = tf.constant([1.0, 2.0, 3.0], r.dtype)
        bumps = tf.exp(-(((r[..., None] - centres) / self.width) ** 2))
        return tf.reduce_sum(bumps * fade[..., None], axis=2)


class Periodic(Sound):
    periodic = True


class Handed(Sound):
    """Adds the triple product of three weighted sums of vectors: a pseudoscalar."""

    def __call__(self, batch):
        near = self.near(batch)
        fade = tf.where(near.mask, self.fade(near.distances), tf.zeros_like(near.distances))
        a, b, c = (
            tf.reduce_sum(near.vectors * (fade**n * near.distances)[..., None], axis=2)
            for n in (1, 2, 3)
        )
        triple = tf.reduce_sum(a * tf.linalg.cross(b, c), axis=-1)
        return super().__call__(batch) + triple[..., None]


@pytest.mark.parametrize(
    "descriptor",
    [
        Sound(["Pt"]),
        Sound(["H", "Pt"], r_cut=1.5),  # less than any bond
        Periodic(["Cu", "Au"]),
        ACSF(["Pt"], 20.0, g1=False, g2_params=[[4.0, 2.5], [0.5, 5.0]]),
        ACSF(["Pt"], 3.0, **FUNCTIONS),
        ACSF(["Cu", "Au"], 4.0, periodic=True, g2_params=[[1.0, 2.5]], g5_params=[[0.1, 1.5, -1]]),
    ],
    ids=["sound", "short", "periodic", "acsf-pairs", "acsf", "acsf-periodic-alloy"],
)
def test_sound_descriptors_pass(descriptor):
    check_descriptor(descriptor)


def test_structures_of_ones_own():
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    check_descriptor(Sound(["H", "O"]), water, seed=3)
    slab = Atoms("HO", [[0, 0, 0], [1, 0, 1]], cell=[2.5, 2.6, 9], pbc=[True, True, False])
    check_descriptor(Periodic(["H", "O"]), [water, slab])
    with pytest.raises(ValueError, match="structures is empty"):
        check_descriptor(Sound(["H"]), [])
    with pytest.raises(ValueError, match=r"structures\[0\] is a str, not an ase.Atoms"):
        check_descriptor(Sound(["H"]), ["H2O"])


def test_chirality_is_a_choice():
    with pytest.raises(AssertionError, match="Handed, reflection: mirrored .chiral=True allows"):
        check_descriptor(Handed(["Pt"]))
    check_descriptor(Handed(["Pt"]), chiral=True)


@pytest.mark.parametrize("descriptor", [Sound(["Cu", "Au"]), Periodic(["Pt"])])
def test_sound_fingerprints_pass(descriptor):
    check_fingerprint(Fingerprint(descriptor, EVERY_POOLING, len(descriptor.species) > 1))


# One or more for each rule: what is wrong, and what the message says.


class Tuple(Sound):
    def __init__(self, species):
        super().__init__(species)
        self.species = tuple(species)


class Endless(Sound):
    def __init__(self, species):
        super().__init__(species, r_cut=np.inf)


class Nothing(Sound):
    size = 0


class Unsaved(Sound):
    get_config = None

    def __getattribute__(self, name):
        if name == "get_config":
            raise AttributeError(name)
        return super().__getattribute__(name)


class OneTooMany(Sound):
    size = 4


class PerStructure(Sound):
    def __call__(self, batch):
        return tf.reduce_sum(super().__call__(batch), axis=1)


class SinglePrecision(Sound):
    def __call__(self, batch):
        return tf.cast(super().__call__(batch), tf.float32)


class DoublePrecision(Sound):
    def near(self, batch):
        return neighbourhood(batch, tf.constant(self.r_cut, tf.float64))


class NumPy(Sound):
    def __call__(self, batch):
        return super().__call__(batch).numpy()


class CoarseInside(Sound):
    """float64 outside, float32 inside."""

    def fade(self, r):
        return tf.cast(super().fade(tf.cast(r, tf.float32)), r.dtype)


class Forgetful(Sound):
    """Loses an argument that has its default value now."""

    def get_config(self):
        return {"species": self.species, "r_cut": self.r_cut}


class Rounding(Sound):
    def get_config(self):
        return {**super().get_config(), "width": round(self.width, 1)}


class Unwritable(Sound):
    def get_config(self):
        return {**super().get_config(), "width": np.float32(self.width)}


class Drifting(Sound):
    def get_config(self):
        return {**super().get_config(), "width": self.width + 1.0}


class Rooted(Sound):
    def __call__(self, batch):
        away = tf.reduce_sum(batch.positions**2, axis=-1, keepdims=True)
        return super().__call__(batch) + 1e-4 * away


class Upright(Sound):
    def __call__(self, batch):
        near = self.near(batch)
        fade = tf.where(near.mask, self.fade(near.distances), tf.zeros_like(near.distances))
        height = tf.reduce_sum(near.vectors[..., 2] ** 2 * fade, axis=2)
        return super().__call__(batch) + height[..., None]


class Sorted(Sound):
    def __call__(self, batch):
        # Those of padding, which are 0, stay at the end.
        return tf.sort(super().__call__(batch), axis=1, direction="DESCENDING")


class Numbered(Sound):
    def __call__(self, batch):
        features = super().__call__(batch)
        places = tf.range(tf.shape(features)[1])
        return features * tf.cast(tf.where(places == 0, 1.1, 1.0), features.dtype)[:, None]


class CountsPadding(Sound):
    def near(self, batch):
        return super().near(batch._replace(numbers=tf.ones_like(batch.numbers)))


class Sociable(Sound):
    def __call__(self, batch):
        features = super().__call__(batch)
        return features - tf.reduce_mean(features, axis=0, keepdims=True)


class FarSighted(Sound):
    def near(self, batch):
        return neighbourhood(batch, 1.5 * self.r_cut)

    def fade(self, r):
        return cosine_cutoff(r, 1.5 * self.r_cut)


class Abrupt(Sound):
    def fade(self, r):
        return tf.ones_like(r)


class BareRoot(Sound):
    """The root's slope is infinite where atoms coincide."""

    def near(self, batch):
        near = super().near(batch)
        squared = tf.reduce_sum(near.vectors**2, axis=-1)
        r = tf.where(near.mask, tf.sqrt(squared), tf.ones_like(squared))
        return near._replace(distances=r)


class Inverse(Sound):
    def fade(self, r):
        return super().fade(r) / r


class Detached(Sound):
    def fade(self, r):
        return tf.stop_gradient(super().fade(r))


class Cut(Sound):
    def __call__(self, batch):
        return tf.stop_gradient(super().__call__(batch))


class StaticShape(Sound):
    def __call__(self, batch):
        rows = [
            super(StaticShape, self).__call__(batch)[:, i] for i in range(batch.numbers.shape[1])
        ]
        return tf.stack(rows, axis=1)


class Uncompilable(Sound):
    def fade(self, r):
        return tf.py_function(super().fade, [r], r.dtype)


class ModeDependent(Sound):
    def fade(self, r):
        return super().fade(r) * (1.0 if tf.executing_eagerly() else 1.001)


class Counting(Sound):
    calls = 0

    def __call__(self, batch):
        self.calls += 1
        return super().__call__(batch)

    def get_config(self):
        return {**super().get_config(), "width": self.width + self.calls * 1e-12}


class Meddling(Sound):
    def create(self, structures):
        for structure in structures:
            structure.positions -= structure.positions.mean(axis=0)


class Blind(Sound):
    """Sees which atoms there are, but not where."""

    def __call__(self, batch):
        features = tf.cast(batch.numbers, batch.positions.dtype)[..., None]
        return features + 0.0 * super().__call__(batch)


class NearestImage(Sound):
    """Says it is periodic, and looks at one image of each neighbour only."""

    periodic = True

    def near(self, batch):
        return super().near(batch._replace(neighbours=None))


BROKEN = [
    (Tuple, "protocol", "species is ('Pt',); a list of chemical symbols is needed"),
    (Endless, "protocol", "r_cut is inf; a positive finite number"),
    (Nothing, "protocol", "size is 0; an integer of at least 1"),
    (Unsaved, "protocol", "it lacks 'get_config'"),
    (OneTooMany, "shape and dtype", "the result has shape"),
    (PerStructure, "shape and dtype", "the result has shape"),
    (SinglePrecision, "shape and dtype", "positions are float64, the result is float32"),
    (DoublePrecision, "shape and dtype", "InvalidArgumentError"),
    (NumPy, "shape and dtype", "the result is a ndarray, not a tensor"),
    (Forgetful, "configuration", "get_config lacks width, which the constructor takes"),
    (Unwritable, "configuration", "TypeError: Object of type float32 is not JSON serializable"),
    (Drifting, "configuration", "comes back as"),
    (Rooted, "translation", "Å, feature 0 of atom"),
    (Upright, "rotation", "rotated, feature 0 of atom"),
    (CoarseInside, "gradient", "and 1e-06 is allowed"),
    (Sorted, "permutation", "with its atoms reordered"),
    (Numbered, "permutation", "with its atoms reordered"),
    (CountsPadding, "padding and company", "among others, padded to"),
    (Sociable, "padding and company", "among others, padded to"),
    (FarSighted, "locality", "with atoms further away than r_cut = 5.0 Å"),
    (Abrupt, "locality", "where an atom crosses r_cut = 5.0 Å; they must be continuous"),
    (BareRoot, "finiteness", "gradients of two atoms in one place are not finite in float64"),
    (Inverse, "finiteness", "features of two atoms in one place are not finite in float64"),
    (Detached, "gradient", "by finite differences"),
    (Cut, "finiteness", "no gradient reaches the positions"),
    (StaticShape, "eager, graph and XLA", "TypeError"),
    (Uncompilable, "eager, graph and XLA", "InvalidArgumentError"),
    (ModeDependent, "eager, graph and XLA", "in a graph of unknown shape, feature"),
    (Counting, "side effects", "a call changed the configuration from"),
    (Meddling, "side effects", "create modified a structure"),
    (Blind, "distinction", "stay the same as atoms move"),
    (NearestImage, "periodicity", "with an atom moved by two lattice vectors"),
]


@pytest.mark.parametrize(("broken", "rule", "message"), BROKEN, ids=[b[0].__name__ for b in BROKEN])
def test_broken_descriptors_fail_by_the_right_rule(broken, rule, message):
    with pytest.raises(AssertionError) as caught:
        check_descriptor(broken(["Pt"]))
    assert str(caught.value).startswith(f"{broken.__name__}, {rule}: ")
    assert message in str(caught.value)


def test_a_lost_value_is_found():
    with pytest.raises(AssertionError, match="Rounding, configuration: after a round trip"):
        check_descriptor(Rounding(["Pt"], width=1.04))


def test_every_rule_has_a_descriptor_that_breaks_it():
    told = {rule for _, rule, _ in BROKEN}
    assert told == {"protocol", "shape and dtype", *RULES} - {"reflection"}


class SumOfAll(Fingerprint):
    """Sums over the padding too, and over more atoms in a larger cell."""

    def __call__(self, batch):
        return tf.reduce_sum(self.descriptor(batch) + 1.0, axis=1)


class LastAtom(Fingerprint):
    def __call__(self, batch):
        return self.descriptor(batch)[:, 0]


@pytest.mark.parametrize(
    ("broken", "rule"), [(SumOfAll, "padding and company"), (LastAtom, "permutation")]
)
def test_broken_fingerprints_fail_by_the_right_rule(broken, rule):
    with pytest.raises(AssertionError, match=f"{broken.__name__}, {rule}: "):
        check_fingerprint(broken(Sound(["Pt"]), ["mean"]))
