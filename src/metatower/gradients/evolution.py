"""Evolution strategies."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, State, Task
from metatower.core.gradient import score
from metatower.core.keys import fork


class Evolution(Gradient):
    """Antithetic evolution strategies with common random numbers.

    g = mean over pairs of (L(φ+σε) − L(φ−σε)) / 2σ · ε, both sides on the same tasks and keys (Salimans et
    al. 2017; Mohamed et al. 2020, section 3). Nothing is differentiated: for runs that are long, chaotic or not
    differentiable. Unbiased for the loss smoothed by a Gaussian of width σ.
    """

    pairs: int = eqx.field(static=True, default=16)
    sigma: float = eqx.field(static=True, default=0.01)

    def __check_init__(self):
        if self.pairs < 1 or self.sigma <= 0:
            raise ValueError(f"Evolution: expected pairs >= 1 and sigma > 0, got {self.pairs} and {self.sigma}.")

    def evaluations(self, size: int) -> int:
        return 2 * self.pairs + 1

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return score(learner, task, key=key)

    def estimate(self, loss, leaves, state: State, *, key: PRNGKeyArray):
        key_noise, key_loss = fork(key, 2)

        def pair(key):
            keys = fork(key, len(leaves))
            noise = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
            above, _ = loss([leaf + self.sigma * e for leaf, e in zip(leaves, noise, strict=True)], key_loss)
            below, _ = loss([leaf - self.sigma * e for leaf, e in zip(leaves, noise, strict=True)], key_loss)
            return [(above - below) / (2 * self.sigma) * e for e in noise]

        gradients = jax.lax.map(pair, fork(key_noise, self.pairs))
        return loss(leaves, key_loss), [jnp.mean(g, axis=0) for g in gradients], state

    def loss_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        return fork(key, 2)[1]
