"""Latent embedding optimisation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from metatower.core import Learner, Positive, Scored, value
from metatower.core.keys import fork
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import class_means, own_label
from metatower.nets.supervised import Examples, cross_entropy


class LEOState(eqx.Module):
    """What LEO knows of a task."""

    weights: Float[Array, "way feature"]
    ways: Bool[Array, " way"]
    kl: Float[Array, ""]
    """One sample of KL(q(z) ‖ N(0, I)), per number of the latents."""
    drift: Float[Array, ""]
    """How far the latents were moved: mean square."""


class LEO(Learner):
    """Gradient descent in a low-dimensional latent space that generates a task's classifier, then on the classifier.

    Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero & Hadsell 2019, "Meta-Learning with Latent Embedding
    Optimization", https://arxiv.org/abs/1807.05960, algorithm 1 and equations 1 to 6:

        μ, σ of class n = mean over its examples i and all partners j of relation([encode(x_i), encode(x_j)])
        z_n ~ N(μ, σ²),    w_n ~ N(decode(z_n)),    logit_n = w_n · x
        z ← z − latent_rate ∘ ∇z L_support   (`latent_steps` times),  then  w ← w − weight_rate ∘ ∇w L_support
        loss = L_query + kl · KL + stopgrad · mean (stop(z′) − z)² + l2 · ½ ‖θ‖² + orthogonality · mean (corr − I)²

    where corr holds the cosines between the rows of the decoder. One step is the whole adaptation. Train it as
    `lift(leo(net, 64, key=key), clip(adam(3e-4), 0.1), batch=12)`, and answer with
    `dataclasses.replace(learner, sampling=False)`.

    Make one with `leo`.

    Differs from the paper in: one latent per class, where the authors' code tiles it over the K examples, samples each
    copy and averages their logits. The inner loss is the sum over examples divided by K, which moves that one latent
    as the K copies are moved together. Rates are learned through their logarithms, and `clip` is of the global norm,
    where the code clips each number and then each tensor. Dropout, sampling, losses and starting values are those of
    the code.
    """

    net: Any
    """Gives the features; a `Constant` of a trained network, for LEO learns nothing in it."""
    encoder: Float[Array, "feature latent"]
    relation: list[Float[Array, "two_latent two_latent"]]
    decoder: Float[Array, "latent two_feature"]
    latent_rate: Any
    weight_rate: Any
    kl: Any = eqx.field(converter=constant_unless_array, default=0.1)
    stopgrad: Any = eqx.field(converter=constant_unless_array, default=1e-5)
    l2: Any = eqx.field(converter=constant_unless_array, default=1e-8)
    orthogonality: Any = eqx.field(converter=constant_unless_array, default=0.1)
    dropout: float = eqx.field(static=True, default=0.3)
    latent_steps: int = eqx.field(static=True, default=5)
    weight_steps: int = eqx.field(static=True, default=5)
    sampling: bool = eqx.field(static=True, default=True)
    """Whether latents and weights are drawn and features dropped, as in training; else means are taken."""

    def start(self, *, key: PRNGKeyArray) -> None:
        del key

    def step(self, state: LEOState | None, data: Examples, *, key: PRNGKeyArray) -> LEOState:
        del state
        x, own = self._features(data.x), own_label(data)
        own = own.astype(x.dtype)
        ways = jnp.any(own > 0, axis=0)
        key_encode, key_latent, *key_steps = fork(key, 3 + self.latent_steps + self.weight_steps)
        mean, deviation = jnp.split(self._relate(self._drop(x, key_encode) @ self.encoder, own), 2, axis=1)
        spread = _spread(deviation, 0.0)
        noise = self._noise(mean, key_latent)
        z = first = mean + spread * noise
        # of the noise, not of (z - mean) / spread: a spread of 1e-10 is lost in the rounding of z
        density = -0.5 * noise**2 - jnp.log(spread) + 0.5 * z**2
        kl = _mean_of(density, ways)

        def loss(w, key):
            inner = Examples(data.x, data.y, data.weight, ways)
            return cross_entropy(self._drop(x, key) @ w.T, inner)[0] * jnp.sum(ways)

        def loss_of_latent(z, key):
            key_decode, key_drop = fork(key, 2)
            return loss(self._decode(z, jnp.sum(ways), key_decode), key_drop)

        for each in key_steps[: self.latent_steps]:
            z = z - value(self.latent_rate) * jax.grad(loss_of_latent)(z, each)
        w = self._decode(z, jnp.sum(ways), key_steps[-1])
        for each in key_steps[self.latent_steps : -1]:
            w = w - value(self.weight_rate) * jax.grad(loss)(w, each)
        return LEOState(w, ways, kl, _mean_of((jax.lax.stop_gradient(z) - first) ** 2, ways))

    def predict(self, state: LEOState, data: Examples) -> Float[Array, "n way"]:
        """Logits for each example; minus infinity for labels that the support set lacks."""
        return jnp.where(state.ways, self._features(data.x) @ state.weights.T, -jnp.inf)

    def loss(self, state: LEOState, data: Examples, *, key: PRNGKeyArray) -> Scored:
        logits = jnp.where(state.ways, self._drop(self._features(data.x), key) @ state.weights.T, -jnp.inf)
        query, metrics = cross_entropy(logits, data)
        matrices = [self.encoder, *self.relation, self.decoder]
        square = jnp.sum(jnp.stack([jnp.sum(matrix**2) for matrix in matrices]))
        rows = self.decoder / jnp.sqrt(jnp.sum(self.decoder**2, axis=1, keepdims=True) + 1e-12)
        parts = {
            "kl": state.kl,
            "stopgrad": state.drift,
            "l2": 0.5 * square,
            "orthogonality": jnp.mean((rows @ rows.T - jnp.eye(len(rows), dtype=rows.dtype)) ** 2),
        }
        total = query + sum(value(getattr(self, name)) * part for name, part in parts.items())
        return total, {**metrics, "cross_entropy": query, **parts}

    def _features(self, x):
        return value(self.net)(x)

    def _relate(self, codes, own):
        """Mean and raw deviation of each class's latent: every example with every other, itself included."""
        n, size = codes.shape
        pairs = jnp.concatenate(
            [jnp.broadcast_to(codes[:, None], (n, n, size)), jnp.broadcast_to(codes[None], (n, n, size))], axis=-1
        )
        for layer in self.relation[:-1]:
            pairs = jax.nn.relu(pairs @ layer)
        weight = jnp.sum(own, axis=1)
        with_partners = jnp.einsum("ijc,j->ic", pairs @ self.relation[-1], weight / jnp.maximum(jnp.sum(weight), 1e-9))
        return class_means(with_partners, own)

    def _decode(self, z, ways, key):
        mean, deviation = jnp.split(z @ self.decoder, 2, axis=1)
        return mean + _spread(deviation, jnp.sqrt(2 / (mean.shape[1] + ways))) * self._noise(mean, key)

    def _noise(self, mean, key):
        if not self.sampling:
            return jnp.zeros_like(mean)
        # a key for each class, so that a class draws the same in a task that is padded to more of them
        return jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:], mean.dtype))(fork(key, len(mean)))

    def _drop(self, x, key):
        if not self.sampling or self.dropout == 0:
            return x
        return jnp.where(jax.random.bernoulli(key, 1 - self.dropout, x.shape), x / (1 - self.dropout), 0.0)


def leo(net: Any, features: int, *, key: PRNGKeyArray, latent: int = 64, **options: Any) -> LEO:
    """A fresh `LEO`: matrices Glorot-uniform, no biases, rates 1 for latents and 0.001 for weights, all learned.

    Args:
        net: gives the features, `Constant(trained network)`, or `Constant(lambda x: x)` where the data are features.
        features: how many.
        latent: numbers per class in the latent space.
        options: other fields of `LEO`.
    """
    keys = fork(key, 5)
    return LEO(
        net,
        _glorot(keys[0], (features, latent)),
        [_glorot(each, (2 * latent, 2 * latent)) for each in keys[1:4]],
        _glorot(keys[4], (latent, 2 * features)),
        Positive(jnp.ones(latent)),
        Positive(jnp.full(features, 0.001)),
        **options,
    )


def _glorot(key, shape):
    bound = (6 / sum(shape)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _spread(deviation, offset):
    return jnp.maximum(jnp.exp(deviation) - 1 + offset, 1e-10)


def _mean_of(values, ways):
    """The mean over the numbers of those classes that the task has."""
    return jnp.sum(jnp.where(ways[:, None], values, 0.0)) / (jnp.maximum(jnp.sum(ways), 1) * values.shape[1])
