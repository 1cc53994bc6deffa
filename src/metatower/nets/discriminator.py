"""Telling networks apart by what they do: fingerprints, a discriminator of them, and the losses of the two players."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import pick, put
from metatower.nets.mlp import Linear
from metatower.nets.supervised import Examples, Supervised


def fingerprint(
    objective: Supervised, support: Examples, probes: Float[Array, "probe ..."]
) -> Float[Array, " fingerprint"]:
    """What a super-net does, and never its weights: two networks that compute the same have the same fingerprint.

    Outputs on `probes`, which have no labels; the residual on every example of `support`, as the derivative of the loss
    by the outputs; the logarithm of the gradient's length there; and the cost of the structure.
    """
    net: Any = objective.net
    key = jax.random.key(0)  # no chance in the loss of a network

    def of_outputs(outputs):
        return objective.criterion(outputs, support)[0]

    residuals = len(support.x) * jax.grad(of_outputs)(net(support.x))
    leaves = pick(objective)
    slope = jax.grad(lambda leaves: put(objective, leaves).loss(support, key=key)[0])(leaves)
    length = jnp.log(sum(jnp.sum(g**2) for g in slope) + 1e-6) / 4
    return jnp.concatenate([net(probes).reshape(-1), residuals.reshape(-1), jnp.stack([length, net.cost()])])


class Discriminator(eqx.Module):
    """How much a fingerprint looks like that of a network that was adapted for long, given its distribution.

    D(f, c) = w · h(f) + (V c) · h(f), the projection of Miyato & Koyama 2018, "cGANs with Projection Discriminator",
    https://arxiv.org/abs/1802.05637, equation 3.

    Args:
        inputs: numbers in a fingerprint.
        context: numbers in c.
        units: of both layers of h.
    """

    enter: Linear
    hidden: Linear
    direct: Float[Array, " unit"]
    project: Float[Array, "context unit"]

    def __init__(self, inputs: int, context: int, units: int = 64, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.enter = Linear(inputs, units, key=keys[0])
        self.hidden = Linear(units, units, key=keys[1])
        self.direct = jax.random.normal(keys[2], (units,)) / units**0.5
        self.project = jax.random.normal(keys[3], (context, units)) / (units * context) ** 0.5

    def __call__(self, seen: Float[Array, " fingerprint"], context: Float[Array, " context"]) -> Float[Array, ""]:
        # smooth, as the penalties are derivatives that are differentiated again
        hidden = jax.nn.softplus(self.hidden(jax.nn.softplus(self.enter(seen[None]))))[0]
        return hidden @ self.direct + (context @ self.project) @ hidden


def relativistic(ours: Float[Array, " pair"], theirs: Float[Array, " pair"]) -> Float[Array, ""]:
    """The loss of the player who wants the discriminator to say more of `ours` than of `theirs`, pair by pair.

    Jolicoeur-Martineau 2019, https://arxiv.org/abs/1807.00734: mean of softplus(theirs − ours). The discriminator plays
    with (real, fake), the generator with (fake, real).

    >>> round(float(relativistic(jnp.zeros(2), jnp.zeros(2))), 4)
    0.6931
    """
    return jnp.mean(jax.nn.softplus(theirs - ours))


def gradient_penalty(
    judge: Callable[..., Float[Array, ""]], seen: Float[Array, "n fingerprint"], *given: Float[Array, "n ..."]
) -> Float[Array, ""]:
    """½ E‖∇ judge‖² with respect to what is seen: R1 on what is real, R2 on what is fake.

    Mescheder, Geiger & Nowozin 2018, https://arxiv.org/abs/1801.04406; both together with `relativistic` converge
    locally (Huang et al. 2024, "The GAN is dead; long live the GAN!", https://arxiv.org/abs/2501.05441).
    """
    slopes = jax.vmap(jax.grad(judge))(seen, *given)
    return 0.5 * jnp.mean(jnp.sum(slopes**2, axis=1))
