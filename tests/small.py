"""A data set, a fingerprint and a model small enough to be made anew in every run of the tests."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms

from tfgen import demo
from tfgen.datasets.storage import Dataset
from tfgen.descriptors.acsf import ACSF
from tfgen.fingerprints.fingerprint import Fingerprint
from tfgen.generation import generate as generation
from tfgen.generation import proposers
from tfgen.generation.proposers import Proposer, make_proposer
from tfgen.generation.settings import ProposalSettings
from tfgen.inversion import reconstruct as inversion
from tfgen.inversion.descent import Goal
from tfgen.inversion.settings import (
    Descent,
    GraphSearchSettings,
    PopulationSettings,
    ProposalMoves,
    RefinementSettings,
    SearchSettings,
)
from tfgen.models import export as saved_model
from tfgen.models import training
from tfgen.models.cvae import CVAE
from tfgen.models.model import Model
from tfgen.models.neural_potential import EnergyNetwork
from tfgen.models.settings import NNPSettings, TrainingSettings
from tfgen.models.training import train
from tfgen.potentials.emt import EMT
from tfgen.relaxation.relax import relax
from tfgen.sampling.initial import random_structures
from tfgen.structures.batch import StructureBatch
from tfgen.structures.properties import UNITS, compute

PROPERTIES = ("energy_per_atom", "radius_of_gyration")
SETTINGS = TrainingSettings(batch_size=16, learning_rate=5e-3, latent=3, hidden=(16,))
TRAINING = {"epochs": 8, "settings": SETTINGS, "potential": None}
# A search without compilation by XLA, which would take longer than the search.
UNCOMPILED = SearchSettings(jit_compile=False)
# A search where its quality is not the point.
QUICK = SearchSettings(
    population=PopulationSettings(initial=6, descent=Descent(steps=40, step_length=0.5)),
    moves=ProposalMoves(
        children=4, single_relocations=1, pair_relocations=1, per_child=2, places=4
    ),
    refinement=RefinementSettings(
        descent=Descent(steps=40, step_length=0.1), polish=Descent(steps=40, step_length=0.05)
    ),
    patience=100,
    jit_compile=False,
)
QUICK_EXPORTED = GraphSearchSettings(
    initial=6,
    initial_descent=Descent(steps=40, step_length=0.5),
    population=4,
    children=6,
    descent=Descent(steps=20, step_length=0.3),
    rounds=1,
)
# Few and coarse proposals.
QUICK_PROPOSALS = ProposalSettings(
    per_candidate=2,
    max_per_structure=4,
    initial_structures=2,
    descent_steps=30,
    max_steps=60,
    jit_compile=False,
)


class PairHistogram:
    """A descriptor as a user writes it: smeared counts of neighbours by distance."""

    def __init__(self, species: list[str], r_cut: float, width: float) -> None:
        self.species, self.r_cut, self.width = list(species), r_cut, width

    @property
    def size(self) -> int:
        return int(self.r_cut / self.width)

    def __call__(self, batch: StructureBatch) -> tf.Tensor:
        x = batch.positions
        vectors = x[:, :, None] - x[:, None, :]
        pair = batch.mask[:, :, None] & batch.mask[:, None, :] & ~tf.eye(x.shape[1], dtype=tf.bool)
        squared = tf.reduce_sum(vectors**2, axis=-1)
        distances = tf.sqrt(tf.where(pair, squared, tf.ones_like(squared)))[..., None]
        centres = self.width * tf.cast(tf.range(1, self.size + 1), x.dtype)
        near = tf.exp(-(((distances - centres) / self.width) ** 2))
        return tf.reduce_sum(tf.where(pair[..., None], near, tf.zeros_like(near)), axis=2)

    def get_config(self) -> dict[str, Any]:
        return {"species": self.species, "r_cut": self.r_cut, "width": self.width}


@functools.cache
def fingerprint() -> Fingerprint:
    """Twelve features: mean and spread of six functions of distances and angles."""
    acsf = ACSF(
        ["Pt"],
        7.0,
        g2_params=[[1.0, r_s] for r_s in (2.0, 2.7, 3.4, 4.1)],
        g5_params=[[0.05, 1, 1], [0.05, 2, -1]],
        g1=False,
    )
    return Fingerprint(acsf, ("mean", "std"))


@functools.cache
def potential() -> EMT:
    """One object for all tests: what is compiled for it is compiled once."""
    return EMT()


@functools.cache
def structures() -> list[Atoms]:
    """Pt5 and Pt6 clusters on their way to minima of EMT: 30 each, no two the same."""
    rng = np.random.default_rng(0)
    initial = [
        Atoms(numbers, positions=x)
        for numbers in (np.full(5, 78), np.full(6, 78))
        for x in random_structures(numbers, 30, rng)
    ]
    return relax(initial, potential(), max_steps=6).structures


@functools.cache
def dataset() -> Dataset:
    """40 structures to train on, 10 to validate, 10 to test."""
    energy = potential().compute(structures())["energy"]
    return Dataset(
        structures=structures(),
        properties=compute(structures(), PROPERTIES, energy),
        units={name: UNITS[name] for name in PROPERTIES},
        split=np.random.default_rng(1).permutation(np.repeat([0, 1, 2], [40, 10, 10])),
        metadata={"name": "small", "kind": "built", "potential": "emt", "seed": 0},
    )


@functools.cache
def model() -> Model:
    """Trained for a few epochs on energy and size: it knows little, but all parts are there."""
    return train(dataset(), PROPERTIES, fingerprint=fingerprint(), seed=5, **TRAINING)


def train_eagerly(patch: pytest.MonkeyPatch) -> None:
    """Spares trainings the tracing of their steps, where it would take longer than they do."""
    for kind in (CVAE, EnergyNetwork):
        patch.setattr(kind, "compile", functools.partialmethod(kind.compile, run_eagerly=True))


def brief_nnp(patch: pytest.MonkeyPatch, min_calculations: int = 100, epochs: int = 3) -> None:
    """Makes `train` learn NNPs from few calculations where no settings say otherwise."""
    brief = functools.partial(
        NNPSettings, min_calculations=min_calculations, epochs=epochs, max_relative_error=1e9
    )
    patch.setattr(training, "NNPSettings", brief)


@contextlib.contextmanager
def quick_search() -> Iterator[None]:
    """Makes searches, exported ones too, and NNPs short where the caller names no settings."""
    with pytest.MonkeyPatch.context() as patch:
        # The command line has no options for these settings.
        invert = functools.partial(inversion.reconstruct, settings=QUICK)
        export = functools.partial(saved_model.export, settings=QUICK_EXPORTED)
        for module, name, function in (
            (inversion, "reconstruct", invert),
            (proposers, "reconstruct", invert),
            (saved_model, "export", export),
            (demo, "export", export),
        ):
            patch.setattr(module, name, function)
        patch.setattr(generation, "make_proposer", _make_quick_proposer)
        brief_nnp(patch)
        yield


def _make_quick_proposer(model: Any, request: Any, settings: Any, **options: Any) -> Proposer:
    """Makes the command line, which has no options for them, use quick settings."""
    if settings.proposals == ProposalSettings():
        settings = dataclasses.replace(settings, proposals=QUICK_PROPOSALS)
    if settings.search == SearchSettings():
        settings = dataclasses.replace(settings, search=QUICK)
    return make_proposer(model, request, settings, **options)


def goal(**other: Any) -> Goal:
    """What a search for the fingerprint of a Pt5 cluster is given, or another in some respects."""
    return Goal(
        numbers=np.full(5, 78),
        target=fingerprint().create([structures()[0]])[0],
        scale=np.linspace(0.5, 2.0, 12),
        tolerance=1e-9,
        initial=np.zeros([0, 5, 3]),
        fixed=np.zeros(5, bool),
        cell=np.zeros([3, 3]),
        pbc=np.zeros(3, bool),
        seed=(1, 2),
    )._replace(**other)


@contextlib.contextmanager
def no_unpickling() -> Iterator[None]:
    """Makes every way of loading a pickle fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    class Unpickler:
        def __init__(self, *_: Any, **__: Any) -> None:
            refuse()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pickle.load", refuse)
        patch.setattr("pickle.loads", refuse)
        patch.setattr("pickle.Unpickler", Unpickler)
        yield


@functools.cache
def of_crystals() -> Fingerprint:
    acsf = ACSF(
        ["Pt"],
        4.0,
        g2_params=[[2.0, r_s] for r_s in (2.0, 2.5, 3.0, 3.5)],
        g5_params=[[0.05, 2, 1], [0.05, 2, -1]],
        periodic=True,
        g1=False,
    )
    return Fingerprint(acsf, ("mean", "std", "moment3"))
