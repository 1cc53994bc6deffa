"""The score-function estimator."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task, run
from metatower.core.keys import fork


class ScoreFunction(Gradient):
    """For learners that act at random: REINFORCE with a leave-one-out baseline over runs of the same task.

    Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning"; Kool,
    van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!". With p_r the probability
    of all that run r drew (`Learner.log_probability` of its last state) and L_r its query loss,

        g = mean_r [ (L_r − b_r) ∇ log p_r + ∇ L_r ],    b_r = mean of L over the other runs.

    Without bias; the second part is the reverse-mode gradient with all choices held fixed. What is differentiated is
    L_r □_r + b_r (1 − □_r) with □ = p / stopped(p), so that derivatives of any order are right in the mean (Foerster et
    al. 2018, "DiCE", arXiv:1802.05098): a storey above may differentiate this gradient once more.

    Choices must be made in `step` from its key; those in `loss` are not credited. A learner that exposes no probability
    gets the gradient of `Unrolled`, of the mean over its runs.

    Args:
        runs: of each task, on keys of their own; at least 2.
    """

    runs: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        if self.runs < 2:
            raise ValueError(f"ScoreFunction: expected runs >= 2, for the others to be a baseline, got {self.runs}.")

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        def one(key):
            key_adapt, key_query = fork(key, 2)
            state = run(learner, task.support, key=key_adapt)
            return learner.loss(state, task.query, key=key_query), learner.log_probability(state)

        (losses, metrics), logs = jax.vmap(one)(fork(key, self.runs))
        box = jnp.exp(logs - jax.lax.stop_gradient(logs))
        others = jax.lax.stop_gradient((jnp.sum(losses) - losses) / (self.runs - 1))
        # the baseline as an addition of exactly zero, so that the value is that of the runs to the last bit
        loss = jnp.mean(losses * box + others * (1 - box))
        return loss, jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)

    def evaluations(self, size: int) -> int:
        return self.runs
