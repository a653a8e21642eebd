"""The SavedModel as its users have it: plain TensorFlow, nothing of tfgen's in reach."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import small
import tensorflow as tf
from disks import files_limited_to
from scipy.spatial.distance import pdist

from tfgen.models.cvae import CVAE
from tfgen.models.export import _write, export

# Runs in a process that cannot import anything but TensorFlow and NumPy of what tfgen needs.
USER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfgen", "ase", "tensorflow_probability", "tf_keras", "scipy"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
for name in ("tfgen", "ase", "tensorflow_probability", "tf_keras"):
    try:
        __import__(name)
    except ImportError:
        pass
    else:
        raise SystemExit(f"{name} can be imported")

import numpy as np
import tensorflow as tf

folder, inputs, outputs = sys.argv[1:]
given = dict(np.load(inputs, allow_pickle=False))
signatures = tf.saved_model.load(folder).signatures
results = {"conditions": given["condition"][:2]}

def call(label, name, **arguments):
    found = signatures[name](**{k: tf.constant(v) for k, v in arguments.items()})
    results.update({f"{label}/{key}": value.numpy() for key, value in found.items()})
    return found

call("fingerprint", "fingerprint", positions=given["positions"], numbers=given["numbers"])
call("encode", "encode", fingerprint=given["fingerprint"], condition=given["condition"])
call("decode", "decode", latent=given["latent"], condition=given["condition"])
for label, seed in (("sample", [3, 4]), ("sample again", [3, 4]), ("sample other", [3, 5])):
    call(label, "sample", condition=given["condition"], seed=np.int32(seed))
for label, seed in (("generate", [3, 4]), ("generate again", [3, 4]), ("generate other", [9, 4])):
    wanted = {"condition": given["condition"][1:], "numbers": given["pt6"]}
    found = call(label, "generate", **wanted, seed=np.int32(seed))
    call(f"{label} fingerprint", "fingerprint", positions=found["positions"],
         numbers=given["pt6"])
rows = {"condition": given["condition"][[1, 1]], "numbers": given["pt6"]}
call("rows", "generate_rows", **rows, seed=np.int32([[3, 4], [3, 4]]))
call("sample rows", "sample_rows", condition=given["condition"][:2],
     seed=np.int32([[3, 4], [3, 4]]))
good = {"positions": given["positions"], "numbers": given["numbers"],
        "fingerprint": given["fingerprint"], "condition": given["condition"],
        "latent": given["latent"]}
INPUTS = {"fingerprint": ("positions", "numbers"), "encode": ("fingerprint", "condition"),
          "decode": ("latent", "condition"), "sample": ("condition",)}
for name, value in (("numbers", 79), ("numbers", -1), ("positions", np.nan), ("positions", np.inf),
                    ("fingerprint", np.nan), ("condition", np.nan), ("condition", 5.5),
                    ("condition", -6.0), ("condition", 0.0), ("latent", np.inf)):
    bad = {k: v.copy() for k, v in good.items()}
    bad[name][1, ..., -1] = value
    for signature, names in INPUTS.items():
        if name in names:
            seeds = {"seed": np.int32([3, 4])} if signature == "sample" else {}
            call(f"bad {signature} {name} {value}", signature,
                 **{k: bad[k] for k in names}, **seeds)
for label, numbers, count in (("unknown", 79, 6.0), ("padded", 0, 6.0), ("unlike", 78, 5.0)):
    bad = {k: v.copy() for k, v in rows.items()}
    bad["numbers"][1, -1], bad["condition"][1, -1] = numbers, count
    call(f"bad generate {label}", "generate", **bad, seed=np.int32([3, 4]))
for name, names in INPUTS.items():
    if name != "sample":
        first, second = names
        try:
            signatures[name](**{first: tf.constant(good[first]),
                                second: tf.constant(good[second][:1])})
        except tf.errors.InvalidArgumentError as error:
            assert "the same number of rows" in error.message, error.message
        else:
            raise SystemExit(f"{name}: rows of one input were taken for those of the other")
results["signatures"] = np.array(sorted(signatures))
assert "tfgen" not in sys.modules
np.savez(outputs, **results)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    export(small.model(), folder, settings=small.QUICK_EXPORTED)
    return folder


@pytest.fixture(scope="module")
def given():
    """Inputs: a Pt5 and a Pt6 in one padded batch, and requests for both."""
    model, rng = small.model(), np.random.default_rng(0)
    structures = [small.structures()[i] for i in (0, 40, 41)]
    numbers, positions = np.zeros([3, 6], np.int32), np.zeros([3, 6, 3], np.float32)
    for row, structure in enumerate(structures):
        numbers[row, : len(structure)] = 78
        positions[row, : len(structure)] = structure.positions
    condition = model.condition_vectors([[1.5, 2.1], [1.7, 2.2], [1.4, 2.0]], numbers)
    return {
        "positions": positions,
        "numbers": numbers,
        "fingerprint": model.fingerprint.create(structures).astype(np.float32),
        "condition": condition.astype(np.float32),
        "latent": rng.normal(size=(3, 3)).astype(np.float32),
        "pt6": np.full([2, 6], 78, np.int32),
    }


@pytest.fixture(scope="module")
def results(exported, given, tmp_path_factory):
    """What another process gets out of the folder."""
    work = tmp_path_factory.mktemp("user")
    np.savez(work / "in.npz", **given)
    (work / "user.py").write_text(USER)
    command = [sys.executable, work / "user.py", exported, work / "in.npz", work / "out.npz"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=work,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    with np.load(work / "out.npz", allow_pickle=False) as file:
        return dict(file)


def test_has_all_signatures(results):
    assert {"fingerprint", "encode", "decode", "sample", "generate"} <= {*results["signatures"]}


def test_fingerprint_is_ours(results, given):
    np.testing.assert_allclose(
        results["fingerprint/fingerprint"], given["fingerprint"], rtol=1e-4, atol=1e-5
    )


def test_encode_is_ours(results, given):
    posterior = small.model().cvae.posterior(given["fingerprint"], given["condition"])
    np.testing.assert_allclose(results["encode/loc"], posterior.mean(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results["encode/scale"], posterior.stddev(), rtol=1e-4, atol=1e-5)


def test_decode_is_ours(results, given):
    cvae = small.model().cvae
    fingerprint = cvae.decode(given["latent"], given["condition"])
    np.testing.assert_allclose(results["decode/fingerprint"], fingerprint, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        results["decode/properties"], cvae.predict_properties(fingerprint), rtol=1e-3, atol=1e-4
    )


def test_sample_draws_by_the_seed(results, given):
    assert results["sample/fingerprint"].shape == (3, 12)
    assert results["sample/properties"].shape == (3, 2)
    np.testing.assert_array_equal(
        results["sample/fingerprint"], results["sample again/fingerprint"]
    )
    change = results["sample/fingerprint"] - results["sample other/fingerprint"]
    assert np.abs(change).max() > 1e-3
    cvae = small.model().cvae
    np.testing.assert_allclose(
        results["sample/properties"],
        cvae.predict_properties(results["sample/fingerprint"]),
        rtol=1e-3,
        atol=1e-4,
    )
    z = cvae.prior([3]).sample(seed=np.array([3, 4], np.int32))
    np.testing.assert_allclose(
        results["sample/fingerprint"], cvae.decode(z, given["condition"]), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("label", ["generate", "generate other"])
def test_generate_inverts_what_it_draws(results, label):
    positions, loss = results[f"{label}/positions"], results[f"{label}/loss"]
    assert positions.shape == (2, 6, 3)
    assert np.isfinite(positions).all()
    error = np.abs(results[f"{label} fingerprint/fingerprint"] - results[f"{label}/fingerprint"])
    np.testing.assert_allclose(loss, (error / small.model().scale).mean(axis=1), rtol=1e-3)
    # Random structures have losses around 1 and more; and atoms lie apart from one another.
    assert (loss < 0.6).all()
    assert min(pdist(x).min() for x in positions) > 1.0


def test_generate_repeats_with_the_seed_only(results):
    for name in ("positions", "loss", "fingerprint", "properties"):
        first = results[f"generate/{name}"]
        np.testing.assert_array_equal(results[f"generate again/{name}"], first)
        assert np.abs(results[f"generate other/{name}"] - first).max() > 1e-4


def test_rows_have_seeds_of_their_own(results):
    for name in ("positions", "loss", "fingerprint", "properties"):
        rows = results[f"rows/{name}"]
        assert np.isfinite(rows).all()
        np.testing.assert_array_equal(rows[0], rows[1])  # a row does not know its place
    fingerprints = results["sample rows/fingerprint"]
    z = small.model().cvae.prior([1]).sample(seed=np.array([3, 4], np.int32))
    expected = small.model().cvae.decode(np.repeat(z, 2, axis=0), results["conditions"])
    np.testing.assert_allclose(fingerprints, expected, rtol=1e-3, atol=1e-4)


def test_what_makes_no_sense_has_no_answer(results):
    bad = {name: values for name, values in results.items() if name.startswith("bad ")}
    assert len({name.partition("/")[0] for name in bad}) == 21
    for name, values in bad.items():
        assert np.isnan(values[1]).all(), name
        assert np.isfinite(values[0]).all(), name


class TestFolder:
    def test_says_what_its_inputs_mean(self, exported):
        config = json.loads((exported / "assets.extra" / "config.json").read_text("utf-8"))
        assert [c["name"] for c in config["conditions"]] == [*small.PROPERTIES]
        assert config["fingerprint"]["descriptor_config"]["species"] == ["Pt"]

    def test_names_and_types_of_the_inputs(self, exported):
        """As `saved_model_cli show` lists them."""
        signatures = tf.saved_model.load(str(exported)).signatures
        found = {
            name: {k: (spec.dtype.name, spec.shape.as_list()) for k, spec in inputs.items()}
            for name, inputs in (
                (name, function.structured_input_signature[1])
                for name, function in signatures.items()
            )
            if name != "serving_default"
        }
        condition = ("float32", [None, 3])
        assert found == {
            "fingerprint": {
                "positions": ("float32", [None, None, 3]), "numbers": ("int32", [None, None])
            },
            "encode": {"fingerprint": ("float32", [None, 12]), "condition": condition},
            "decode": {"latent": ("float32", [None, 3]), "condition": condition},
            "sample": {"condition": condition, "seed": ("int32", [2])},
            "generate": {
                "condition": condition, "numbers": ("int32", [None, None]), "seed": ("int32", [2])
            },
            "sample_rows": {"condition": condition, "seed": ("int32", [None, 2])},
            "generate_rows": {
                "condition": condition, "numbers": ("int32", [None, None]),
                "seed": ("int32", [None, 2]),
            },
        }  # fmt: skip

    def test_is_replaced_only_when_told(self, exported):
        with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
            export(small.model(), exported)
        (exported / "notes.txt").touch()
        with pytest.raises(FileExistsError, match="holds 'notes.txt'"):
            export(small.model(), exported, overwrite=True)
        (exported / "notes.txt").unlink()

    def test_is_not_mistaken_for_a_model(self, tmp_path):
        small.model().save(tmp_path / "model")
        with pytest.raises(FileExistsError, match="holds 'checksums.json'"):
            export(small.model(), tmp_path / "model", overwrite=True)
        assert (tmp_path / "model" / "config.json").exists()

    def test_interrupted_leaves_the_old_one_whole(self, tmp_path, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        settings = dataclasses.replace(small.QUICK_EXPORTED, rounds=0)
        old = tmp_path / "saved_model"
        old.mkdir()
        (old / "saved_model.pb").write_text("old")
        monkeypatch.setattr("tfgen.models.export.json.dumps", interrupt)  # the last thing written
        with pytest.raises(KeyboardInterrupt):
            export(small.model(), old, settings=settings, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["saved_model"]
        assert (old / "saved_model.pb").read_text() == "old"

    def test_leaves_the_model_as_it_was(self, exported):
        assert isinstance(small.model().cvae, CVAE)
        conditions = small.model().condition_vectors([[1.5, 2.1]], np.full(6, 78))
        assert np.isfinite(small.model().sample(conditions, 0)).all()


def test_a_full_disk_is_an_error_of_the_operating_system(tmp_path):
    class Archive:
        """Writes as TensorFlow does, without the seconds that the signatures take."""

        def write_out(self, folder, verbose):
            tf.io.write_file(f"{folder}/saved_model.pb", b"0" * 10000)

    with files_limited_to(1000), pytest.raises(OSError, match="too large: '.*sm'"):
        _write(Archive(), small.model(), tmp_path / "sm", overwrite=False)
    assert list(tmp_path.iterdir()) == []
