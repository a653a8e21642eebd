"""The CVAE against closed forms, and as Keras users expect a model to behave."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit
from scipy.stats import laplace, norm

from tfgen.models.callbacks import KLWarmUp
from tfgen.models.cvae import CVAE, SCALE_FLOOR, SIGMA_FLOOR

FEATURES, CONDITIONS, PROPERTIES, LATENT = 12, 3, 2, 2
LOSSES = ("loss", "nll", "kl", "property_error", "active_units", "condition_error")


@pytest.fixture(scope="module")
def data():
    """Fingerprints that follow their conditions, with some noise; scales and centres differ."""
    rng = np.random.default_rng(0)
    condition = rng.normal(size=(160, CONDITIONS)) * [0.1, 2.0, 1.0] + [1.0, -3.0, 5.0]
    fingerprint = (
        condition @ rng.normal(size=(CONDITIONS, FEATURES)) + 0.1 * rng.normal(size=(160, FEATURES))
    ) * np.logspace(-1, 1, FEATURES)
    return {"fingerprint": np.float32(fingerprint), "condition": np.float32(condition)}


def small(data=None, **changes) -> CVAE:
    arguments = {"latent": LATENT, "hidden": (8,), "seed": 3, **changes}
    cvae = CVAE(FEATURES, CONDITIONS, PROPERTIES, **arguments)
    if data is not None:
        cvae.adapt(data["fingerprint"], data["condition"])
    return cvae


def fit(cvae, data, epochs=3, callbacks=(), **compiling):
    """Trains on three quarters, validates on the rest; shuffles as the seed says."""
    keras.utils.set_random_seed(11)
    cvae.compile(**{"optimizer": keras.optimizers.Adam(1e-2), **compiling})
    cvae.optimizer.build(cvae.trainable_variables)  # else Keras traces each step twice
    train, held = ({k: v[rows] for k, v in data.items()} for rows in (slice(120), slice(120, None)))
    return cvae.fit(
        train,
        validation_data=(held, None),
        epochs=epochs,
        batch_size=40,
        callbacks=list(callbacks),
        verbose=0,
    ).history


@pytest.fixture(scope="module")
def trained(data):
    """A model after three epochs, and their history."""
    cvae = small(data)
    return cvae, fit(cvae, data)


@pytest.mark.parametrize("argument", ["features", "conditions", "properties", "latent"])
def test_sizes_of_nothing_are_refused(argument):
    arguments = {"features": 4, "conditions": 2, "properties": 1, "latent": 2, argument: 0}
    with pytest.raises(ValueError, match="all must be >= 1"):
        CVAE(**arguments)


def test_more_properties_than_conditions_are_refused():
    with pytest.raises(ValueError, match="4, 2, 3, 10; .* properties <= conditions"):
        CVAE(features=4, conditions=2, properties=3)


def test_other_likelihoods_are_refused():
    with pytest.raises(ValueError, match="'cauchy'; one of normal, laplace, unit_normal is needed"):
        CVAE(features=4, conditions=2, likelihood_family="cauchy")


@pytest.mark.parametrize("argument", ["loss", "loss_weights", "metrics", "weighted_metrics"])
def test_another_loss_is_refused(argument):
    with pytest.raises(ValueError, match=f"^{argument} is 'mse'; CVAE has a loss and metrics of"):
        small().compile("adam", **{argument: "mse"})


class TestWrongData:
    def test_widths(self, data):
        """Those of width 1 would be broadcast."""
        cvae = small(data)
        for name, width in (("fingerprint", FEATURES), ("condition", CONDITIONS)):
            for wrong in (1, width - 1, width + 1):
                inputs = {**data, name: np.ones([160, wrong], np.float32)}
                with pytest.raises(ValueError, match=f"{name}s have {wrong} columns; {width} are"):
                    cvae(inputs)
        with pytest.raises(ValueError, match="fingerprints have 1 columns; 12 are needed"):
            cvae.predict_properties(np.ones([4, 1], np.float32))
        with pytest.raises(ValueError, match="conditions have 1 columns; 3 are needed"):
            cvae.decode(np.ones([4, LATENT], np.float32), np.ones([4, 1], np.float32))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fingerprints": np.full([5, FEATURES], np.nan)}, "fingerprints are not finite"),
            ({"fingerprints": np.full([5, FEATURES], 1e39)}, "fingerprints are not finite"),
            ({"conditions": np.full([5, CONDITIONS], np.inf)}, "conditions are not finite"),
            ({"fingerprints": np.ones([5, 4])}, r"shape \[5, 4\]; \[n, 12\] is needed"),
            ({"fingerprints": np.ones([0, FEATURES])}, r"shape \[0, 12\]; \[n, 12\] is needed"),
            ({"conditions": np.ones(CONDITIONS)}, r"shape \[3\]; \[n, 3\] is needed"),
            ({"conditions": np.ones([4, CONDITIONS])}, "are 5 fingerprints and 4 conditions"),
            ({"scale": np.zeros(FEATURES)}, "scale has to be 12 finite numbers above 0"),
            ({"scale": np.full(FEATURES, np.nan)}, "scale has to be 12 finite numbers above 0"),
            ({"scale": 2.0}, "scale has to be 12 finite numbers above 0"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
    def test_adapt(self, changes, message):
        cvae = small()
        sound = {"fingerprints": np.ones([5, FEATURES]), "conditions": np.ones([5, CONDITIONS])}
        with pytest.raises(ValueError, match=message):
            cvae.adapt(**{**sound, **changes})
        np.testing.assert_array_equal(cvae.feature_mean, 0.0)
        np.testing.assert_array_equal(cvae.feature_scale, 1.0)

    @pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
    def test_sample_weights(self, data, weight):
        cvae, weights = small(data), np.ones(160, np.float32)
        weights[7] = weight
        for method in (cvae.fit, cvae.evaluate):
            with pytest.raises(ValueError, match="a sample weight is negative or not finite"):
                method(data, sample_weight=weights, verbose=0)
        outputs = cvae(data)
        # From a pipeline they come one batch at a time.
        with pytest.raises(tf.errors.InvalidArgumentError, match="weights have to be finite"):
            cvae.compute_loss(data, None, outputs, weights)

        @tf.function(jit_compile=True)
        def compiled(weights):
            return cvae.compute_loss(data, None, outputs, weights)

        if weight == -1.0:
            assert np.isnan(compiled(tf.constant(weights)))

    def test_sample_weights_weigh(self, data):
        cvae, weights = small(data), np.zeros(160, np.float32)
        weights[:80] = 2.0
        outputs = cvae(data)
        half = {name: values[:80] for name, values in data.items()}
        found = cvae.compute_loss(data, None, outputs, weights, training=False)
        wanted = cvae.compute_loss(half, None, cvae(half), training=False)
        assert float(found) == pytest.approx(float(wanted), rel=1e-4)
        cvae.compile(run_eagerly=True)
        options = {"batch_size": 160, "verbose": 0, "return_dict": True}
        found = cvae.evaluate(data, sample_weight=weights, **options)
        assert found["loss"] == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("family", ["normal", "laplace", "unit_normal"])
def test_likelihood(family, data):
    """By the densities of SciPy; σ is what softplus makes of the weight, above a floor."""
    cvae = small(data, likelihood_family=family)
    raw = np.linspace(-1, 1, FEATURES)
    cvae.raw_sigma.assign(raw)
    sigma = np.log1p(np.exp(raw)) + SIGMA_FLOOR
    z, c = np.ones([3, LATENT], np.float32), data["condition"][:3]
    found = cvae.likelihood(z, c)
    x = np.random.default_rng(0).normal(size=(3, FEATURES)).astype(np.float32)
    loc = found.mean().numpy()
    each = {
        "normal": norm.logpdf(x, loc, sigma),
        "laplace": laplace.logpdf(x, loc, sigma),
        "unit_normal": norm.logpdf(x, loc, 1.0),
    }[family]
    np.testing.assert_allclose(found.log_prob(x), each.sum(axis=1), rtol=1e-4)
    trainable = any(w is cvae.raw_sigma for w in cvae.trainable_weights)
    assert trainable == (family != "unit_normal")


def test_config_says_how_to_make_the_same():
    cvae = small(
        kl_weight=0.5, surrogate_weight=2.0, hidden=[5, 4], likelihood_family="laplace", name="mine"
    )
    config = json.loads(json.dumps(cvae.get_config()))
    again = CVAE.from_config(config)
    assert again.get_config() == cvae.get_config()
    for name in ("features", "conditions", "properties", "latent", "kl_weight",
                 "surrogate_weight", "likelihood_family", "seed", "hidden"):  # fmt: skip
        assert getattr(again, name) == getattr(cvae, name)
    assert again.hidden == (5, 4)


class TestScaling:
    def test_centres_and_scales_every_column(self, data):
        cvae = small(data)
        scaled = cvae._scaled(data["fingerprint"]).numpy()
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)
        scaled = cvae._scaled_condition(data["condition"]).numpy()
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)

    def test_does_not_blow_up_columns_that_hardly_vary(self, data):
        fingerprint, condition = data["fingerprint"].copy(), data["condition"].copy()
        fingerprint[:, 3] = 7.0
        fingerprint[:, 4] = 7.0 + 1e-6 * np.arange(160)
        condition[:, 1] = 5.0
        cvae = small({"fingerprint": fingerprint, "condition": condition})
        largest = fingerprint.astype(np.float64).std(axis=0).max()
        np.testing.assert_allclose(
            cvae.feature_scale.numpy()[[3, 4]], SCALE_FLOOR * largest, rtol=1e-5
        )
        np.testing.assert_allclose(cvae._scaled(fingerprint).numpy()[:, 3], 0, atol=1e-4)
        assert cvae.condition_scale.numpy()[1] == 1.0
        np.testing.assert_array_equal(cvae._scaled_condition(condition).numpy()[:, 1], 0)

    def test_of_fingerprints_that_are_all_the_same_is_one(self):
        cvae = small()
        cvae.adapt(np.ones([5, FEATURES]), np.ones([5, CONDITIONS]))
        np.testing.assert_array_equal(cvae.feature_scale, 1.0)
        np.testing.assert_array_equal(cvae.condition_scale, 1.0)

    def test_may_be_given(self, data):
        cvae, scale = small(), np.linspace(1, 2, FEATURES)
        cvae.adapt(data["fingerprint"], data["condition"], scale)
        np.testing.assert_allclose(cvae.feature_scale, scale, rtol=1e-6)

    def test_is_not_trained(self, data, trained):
        fresh = small(data)
        for name in ("feature_mean", "feature_scale", "condition_mean", "condition_scale"):
            np.testing.assert_array_equal(getattr(trained[0], name), getattr(fresh, name))
        assert len(fresh.trainable_weights) == 13  # three stacks of two layers, and raw_sigma


@pytest.fixture(scope="module")
def cvae(data):
    """An untrained model that would differ in all places if its weights or σ were left out."""
    cvae = small(data, kl_weight=0.7, surrogate_weight=1.3)
    cvae.raw_sigma.assign(np.linspace(-2, 2, FEATURES))
    return cvae


class TestClosedForms:
    @staticmethod
    def mlp(stack, x):
        """The dense layers with SiLU between them, in NumPy."""
        weights = [w.numpy() for w in stack.weights]
        for place in range(0, len(weights), 2):
            x = x @ weights[place] + weights[place + 1]
            if place < len(weights) - 2:
                x = x * expit(x)
        return x

    @staticmethod
    def scaled(data):
        x, c = data["fingerprint"].astype(float), data["condition"].astype(float)
        return (x - x.mean(axis=0)) / x.std(axis=0), (c - c.mean(axis=0)) / c.std(axis=0)

    def test_posterior(self, cvae, data):
        x, c = self.scaled(data)
        loc, raw = np.split(self.mlp(cvae.encoder, np.hstack([x, c])), 2, axis=1)
        found = cvae.posterior(data["fingerprint"], data["condition"])
        assert (found.batch_shape, found.event_shape) == ((160,), (LATENT,))
        np.testing.assert_allclose(found.mean(), loc, atol=1e-4)
        np.testing.assert_allclose(
            found.stddev(), np.logaddexp(0, raw) + SIGMA_FLOOR, rtol=1e-3, atol=1e-4
        )

    def test_decoder_and_surrogate(self, cvae, data):
        x, c = self.scaled(data)
        z = np.random.default_rng(1).normal(size=(160, LATENT))
        mean = self.mlp(cvae.decoder, np.hstack([z, c]))
        mean = mean * data["fingerprint"].std(axis=0) + data["fingerprint"].mean(axis=0)
        spread = data["fingerprint"].std(axis=0)
        found = cvae.decode(tf.constant(z, tf.float32), data["condition"])
        np.testing.assert_allclose(found / spread, mean / spread, atol=1e-3)
        properties = self.mlp(cvae.surrogate, x)
        properties = properties * data["condition"][:, :2].std(axis=0)
        properties += data["condition"][:, :2].mean(axis=0)
        found = cvae.predict_properties(data["fingerprint"])
        assert found.shape == (160, PROPERTIES)
        np.testing.assert_allclose(found, properties, atol=1e-3)

    def test_prior(self, cvae):
        prior = cvae.prior([4, 5])
        assert (prior.batch_shape, prior.event_shape) == ((4, 5), (LATENT,))
        z = np.random.default_rng(2).normal(size=(4, 5, LATENT)).astype(np.float32)
        np.testing.assert_allclose(prior.log_prob(z), norm.logpdf(z).sum(axis=-1), rtol=1e-5)

    @pytest.mark.parametrize(("training", "warmth"), [(True, 0.25), (False, 1.0)])
    def test_loss(self, cvae, data, training, warmth):
        """Validation has the full weight of the KL term, whatever the warm-up."""
        cvae.kl_warmth.assign(0.25)
        outputs = cvae(data, training=False)
        for metric in cvae.metrics:
            metric.reset_state()
        loss = cvae.compute_loss(data, None, outputs, training=training)

        x, c = self.scaled(data)
        loc, raw = np.split(self.mlp(cvae.encoder, np.hstack([x, c])), 2, axis=1)
        scale = np.logaddexp(0, raw) + SIGMA_FLOOR
        kl = 0.5 * (scale**2 + loc**2 - 1 - np.log(scale**2)).sum(axis=1)
        sigma = np.logaddexp(0, np.linspace(-2, 2, FEATURES)) + SIGMA_FLOOR
        mean = self.mlp(cvae.decoder, np.hstack([loc, c]))
        nll = -norm.logpdf(x, mean, sigma).sum(axis=1) / FEATURES
        error = ((self.mlp(cvae.surrogate, x) - c[:, :PROPERTIES]) ** 2).mean(axis=1)
        wanted = (nll + 0.7 * warmth * kl / FEATURES + 1.3 * error).mean()
        assert float(loss) == pytest.approx(wanted, rel=1e-4)
        found = {metric.name: float(metric.result()) for metric in cvae.metrics}
        assert found == {
            "loss": pytest.approx(wanted, rel=1e-4),
            "nll": pytest.approx(nll.mean(), rel=1e-4),
            "kl": pytest.approx(kl.mean(), rel=1e-4),
            "property_error": pytest.approx(np.sqrt(error).mean(), rel=1e-4),
            "active_units": (
                (0.5 * (scale**2 + loc**2 - 1 - np.log(scale**2))).mean(axis=0) > 0.05
            ).sum(),
            "condition_error": pytest.approx(self.heeded(cvae, c, training), rel=1e-4),
        }

    def heeded(self, cvae, c, training) -> float:
        """How far properties of fingerprints decoded from the prior are from those asked for."""
        c = c[:16] if training else c
        z = tf.random.stateless_normal([len(c), LATENT], [cvae.seed, 0], alg="philox").numpy()
        x = self.mlp(cvae.decoder, np.hstack([z, c]))
        off = self.mlp(cvae.surrogate, x) - c[:, :PROPERTIES]
        return np.sqrt((off**2).mean(axis=1)).mean()

    def test_training_samples_from_the_posterior(self, cvae, data):
        still = cvae(data)["fingerprint"]
        np.testing.assert_array_equal(cvae(data)["fingerprint"], still)
        samples = np.array([cvae(data, training=True)["fingerprint"] for _ in range(25)])
        assert np.abs(samples[0] - samples[1]).max() > 0
        # The decoder is not linear, but nearly so for the whole batch.
        spread = data["fingerprint"].std(axis=0)
        assert np.abs((samples.mean(axis=(0, 1)) - np.mean(still, axis=0)) / spread).max() < 0.1


def test_samples_repeat_with_the_seed_only():
    prior = small().prior([6])
    first = prior.sample(seed=np.array([4, 0], np.int32))
    np.testing.assert_array_equal(prior.sample(seed=np.array([4, 0], np.int32)), first)
    assert np.abs(prior.sample(seed=np.array([5, 0], np.int32)) - first).min() > 0
    many = prior.sample(5000, seed=np.array([1, 2], np.int32)).numpy().reshape(-1, LATENT)
    np.testing.assert_allclose(many.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(many.T), np.eye(LATENT), atol=0.03)


class TestTraining:
    def test_lowers_the_loss_and_reports_its_parts(self, trained):
        history = trained[1]
        assert set(history) == {*LOSSES, *(f"val_{name}" for name in LOSSES)}
        assert history["loss"][-1] < history["loss"][0] - 0.1
        assert history["val_loss"][-1] < history["val_loss"][0] - 0.1
        assert np.isfinite(list(history.values())).all()
        assert min(history["kl"]) >= 0

    def test_reaches_every_trainable_weight(self, data):
        cvae = small(data)
        with tf.GradientTape() as tape:
            loss = cvae.compute_loss(data, None, cvae(data, training=True))
        for weight, gradient in zip(
            cvae.trainable_weights,
            tape.gradient(loss, [w.value for w in cvae.trainable_weights]),
            strict=True,
        ):
            assert gradient is not None, weight.path
            assert np.abs(gradient).max() > 0, weight.path

    def test_repeats_with_the_seed(self, data, trained):
        again, other = small(data), small(data, seed=4)
        history = fit(again, data)
        assert history == trained[1]
        for a, b in zip(again.weights, trained[0].weights, strict=True):
            np.testing.assert_array_equal(a, b)
        for stack in ("encoder", "decoder", "surrogate"):
            ours, theirs = (getattr(c, stack).weights[0].numpy() for c in (small(data), other))
            assert np.abs(ours - theirs).min() > 0

    def test_noise_is_the_model_s_own(self, data):
        """It does not depend on random numbers that others use."""
        samples = []
        for process_seed in (1, 2):
            keras.utils.set_random_seed(process_seed)
            samples.append(small(data)(data, training=True)["fingerprint"])
        np.testing.assert_array_equal(*samples)

    def test_starts_all_layers_differently(self):
        cvae = small(hidden=(4, 4), latent=2)
        cvae.build()
        kernels = [w.numpy() for w in cvae.trainable_weights if "kernel" in w.path]
        assert len(kernels) == 9
        values = np.concatenate([kernel.ravel() for kernel in kernels])
        assert len(np.unique(values)) == len(values)

    def test_warm_up_reaches_the_compiled_graph(self, data):
        """Without surrogate, (loss - nll) F / kl is the weight that was in force."""
        cvae = small(data, surrogate_weight=0.0, kl_weight=0.5)
        found = fit(cvae, data, epochs=6, callbacks=[KLWarmUp(4)])
        weight = {
            prefix: (np.array(found[f"{prefix}loss"]) - found[f"{prefix}nll"])
            / found[f"{prefix}kl"] * FEATURES
            for prefix in ("", "val_")
        }  # fmt: skip
        np.testing.assert_allclose(
            weight[""], np.array([0.25, 0.5, 0.75, 1, 1, 1]) * 0.5, rtol=2e-3
        )
        np.testing.assert_allclose(weight["val_"], 0.5, rtol=2e-3)

    def test_warm_up_over_no_epochs_is_none(self, data):
        cvae = small(data)
        callback = KLWarmUp(0)
        callback.set_model(cvae)
        callback.on_epoch_begin(0)
        assert cvae.kl_warmth.numpy() == 1.0

    def test_learns_fingerprints_given_conditions(self, data):
        """Sampled fingerprints follow their conditions, and the surrogate agrees."""
        cvae = small(data, hidden=(32,))
        fit(cvae, data, epochs=40, callbacks=[KLWarmUp(10)])
        conditions = data["condition"][120:]
        sampled = cvae.decode(cvae.prior([40]).sample(seed=np.array([0, 1], np.int32)), conditions)
        spread = data["fingerprint"].std(axis=0)
        error = np.abs(sampled - data["fingerprint"][120:]) / spread
        assert np.median(error) < 0.3  # 0.95 for fingerprints sampled without regard
        deviation = np.abs(cvae.predict_properties(sampled) - conditions[:, :PROPERTIES])
        assert (deviation.mean(axis=0) < 0.35 * conditions[:, :PROPERTIES].std(axis=0)).all()

    def test_with_xla(self, data, trained):
        """The same but for the noise of training, which XLA samples with another generator."""
        cvae = small(data)
        history = fit(cvae, data, jit_compile=True, callbacks=[KLWarmUp(3)])
        assert history["loss"][-1] < history["loss"][0] - 0.1
        assert history["val_nll"][-1] == pytest.approx(trained[1]["val_nll"][-1], rel=0.2)
        held = {k: v[120:] for k, v in data.items()}
        compiled = cvae.evaluate(held, batch_size=40, verbose=0, return_dict=True)
        cvae.compile()
        plain = cvae.evaluate(held, batch_size=40, verbose=0, return_dict=True)
        assert compiled == pytest.approx(plain, rel=1e-4)

    def test_takes_a_tf_data_pipeline(self, data):
        cvae = small(data)
        cvae.compile("adam")
        batches = tf.data.Dataset.from_tensor_slices(data).batch(40)
        before = cvae.evaluate(batches, verbose=0, return_dict=True)
        cvae.fit(batches, epochs=2, shuffle=False, verbose=0)
        after = cvae.evaluate(batches, verbose=0, return_dict=True)
        assert set(after) == set(LOSSES)
        assert after["loss"] < before["loss"]

    def test_predict(self, data, trained):
        found = trained[0].predict(data, batch_size=50, verbose=0)
        shapes = {name: value.shape for name, value in found.items()}
        assert shapes == {
            "latent_loc": (160, LATENT),
            "latent_scale": (160, LATENT),
            "fingerprint": (160, FEATURES),
            "properties": (160, PROPERTIES),
        }
        direct = trained[0](data)
        for name, value in found.items():
            np.testing.assert_allclose(value, direct[name], rtol=1e-4, atol=1e-4)


class TestFiles:
    def test_keras_file_gives_the_same_model(self, data, trained, tmp_path):
        cvae = trained[0]
        cvae.save(tmp_path / "cvae.keras", include_optimizer=True)
        again = keras.models.load_model(tmp_path / "cvae.keras")
        assert isinstance(again, CVAE)
        assert again.get_config() == cvae.get_config()
        for name, value in cvae(data).items():
            np.testing.assert_array_equal(again(data)[name], value)
        z = np.ones([160, LATENT], np.float32)
        np.testing.assert_array_equal(
            again.decode(z, data["condition"]), cvae.decode(z, data["condition"])
        )
        # It is compiled, and training continues where it was.
        inputs = {"verbose": 0, "return_dict": True}
        assert again.evaluate(data, **inputs) == pytest.approx(cvae.evaluate(data, **inputs))
        assert int(again.optimizer.iterations) == int(cvae.optimizer.iterations)
        assert len(again.optimizer.variables) == len(cvae.optimizer.variables)

    def test_without_the_state_of_the_optimizer_unless_asked(self, data, trained, tmp_path):
        cvae, path = trained[0], tmp_path / "cvae.keras"
        before = int(cvae.optimizer.iterations)
        for asked, count in ((True, len(cvae.optimizer.variables)), (False, 2)):
            cvae.save(path, include_optimizer=asked)
            with zipfile.ZipFile(path) as archive:
                file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
            assert len(file["optimizer/vars"]) == count
        assert int(cvae.optimizer.iterations) == before > 0
        again = keras.saving.load_model(path)
        for a, b in zip(again.weights, cvae.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        assert int(again.optimizer.iterations) == 0
        assert isinstance(again.optimizer, keras.optimizers.Adam)
        inputs = {"verbose": 0, "return_dict": True}
        assert again.evaluate(data, **inputs) == pytest.approx(cvae.evaluate(data, **inputs))

    def test_is_loaded_after_tfgen_alone_is_imported(self, data, tmp_path):
        """In a new process."""
        small(data).save(tmp_path / "cvae.keras")
        code = "import tfgen, keras; print(keras.saving.load_model('cvae.keras').features)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert done.stdout == f"{FEATURES}\n", done.stderr

    def test_export_by_keras(self, data, trained, tmp_path):
        trained[0].export(tmp_path / "saved", verbose=False)
        saved = tf.saved_model.load(tmp_path / "saved")
        rows = {name: values[:7] for name, values in data.items()}
        for name, value in trained[0](rows).items():
            np.testing.assert_allclose(saved.serve(rows)[name], value, rtol=1e-4, atol=1e-4)

    def test_an_untrained_model_can_be_saved(self, data, tmp_path):
        cvae = small(data)
        cvae.save(tmp_path / "cvae.keras")
        again = keras.models.load_model(tmp_path / "cvae.keras")
        np.testing.assert_array_equal(again.feature_scale, cvae.feature_scale)
        np.testing.assert_array_equal(again(data)["fingerprint"], cvae(data)["fingerprint"])

    def test_usual_callbacks(self, data, tmp_path):
        """The best epoch is kept in a file and given back; TensorBoard has both curves."""
        cvae = small(data)
        callbacks = [
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True),
            keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
            keras.callbacks.TensorBoard(str(tmp_path / "logs")),
        ]
        rate = keras.optimizers.Adam(0.5)  # so high that the loss goes up again
        history = fit(cvae, data, epochs=30, callbacks=callbacks, optimizer=rate)
        assert len(history["val_loss"]) < 30
        held = {k: v[120:] for k, v in data.items()}
        best = min(history["val_loss"])
        assert history["val_loss"][-1] > best
        for model in (cvae, keras.models.load_model(tmp_path / "best.keras")):
            found = model.evaluate(held, batch_size=40, verbose=0, return_dict=True)
            assert found["loss"] == pytest.approx(best, rel=1e-5)
        for split in ("train", "validation"):
            assert list((tmp_path / "logs" / split).glob("events.out.tfevents.*"))
