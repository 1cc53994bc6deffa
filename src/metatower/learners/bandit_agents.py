"""Classical agents for Bernoulli bandits, each a learner like any other, so that one evaluation judges all."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Constant, value
from metatower.core.keys import fork
from metatower.core.leaves import constant_unless_array
from metatower.envs.trial import Seen
from metatower.learners.acting import Agent
from metatower.learners.informed import Informed
from metatower.tasks.chance import uniforms


class Counts(eqx.Module):
    """What was seen of each arm."""

    successes: Float[Array, " k"]
    failures: Float[Array, " k"]

    @property
    def pulls(self) -> Float[Array, " k"]:
        """How often each arm was pulled, prior counts included."""
        return self.successes + self.failures

    @property
    def mean(self) -> Float[Array, " k"]:
        """The share of successes; ½ where there is nothing to share."""
        return jnp.where(self.pulls > 0, self.successes / jnp.maximum(self.pulls, 1e-9), 0.5)


class BanditAgent(Agent):
    """Counts successes and failures of every arm, from `prior` of each, and pulls the arm with the highest index.

    One success and one failure of each arm beforehand is the uniform prior, which is the truth in Duan et al.'s
    bandits, and what their baselines start from (2016, section 3.1).
    """

    prior: eqx.AbstractVar[Any]

    @abstractmethod
    def index(self, counts: Counts, pull: Int[Array, ""], *, key: PRNGKeyArray) -> Float[Array, " k"]:
        """What the agent goes by; `pull` is how many pulls there were, without prior counts."""

    def begin(self, *, key: PRNGKeyArray) -> tuple[Counts, Int[Array, ""]]:
        del key
        start = jnp.full((self.actions,), value(self.prior), jnp.result_type(float))
        return Counts(start, start), jnp.zeros((), jnp.int32)

    def decide(self, memory, seen: Seen, *, key: PRNGKeyArray):
        counts, pull = memory
        counts = Counts(counts.successes + seen.action * seen.reward, counts.failures + seen.action * (1 - seen.reward))
        pull = pull + jnp.sum(seen.action).astype(jnp.int32)
        key_index, key_tie = fork(key, 2)
        index = self.index(counts, pull, key=key_index)
        # of equal arms any: they are alike now, but may have been unequal by their place
        tie = jnp.where(index >= jnp.max(index), uniforms(key_tie, (self.actions,))[0], -1.0)
        return (counts, pull), jnp.argmax(tie), {}


class RandomArm(BanditAgent):
    """Pulls any arm, all equally likely."""

    actions: int = eqx.field(static=True)
    prior: Any = eqx.field(converter=constant_unless_array, default=1.0)

    def index(self, counts, pull, *, key):
        del pull, key
        return jnp.zeros_like(counts.mean)


class Greedy(BanditAgent):
    """Pulls the arm with the highest posterior mean."""

    actions: int = eqx.field(static=True)
    prior: Any = eqx.field(converter=constant_unless_array, default=1.0)

    def index(self, counts, pull, *, key):
        del pull, key
        return counts.mean


class EpsilonGreedy(BanditAgent):
    """As greedy, but with probability ε any arm.

    Args:
        actions: k.
        epsilon: ε, an array to have it learned.
        prior: counts of each arm and outcome beforehand.
    """

    actions: int = eqx.field(static=True)
    epsilon: Any = eqx.field(converter=constant_unless_array, default=0.05)
    prior: Any = eqx.field(converter=constant_unless_array, default=1.0)

    def index(self, counts, pull, *, key):
        del pull
        (chance,) = uniforms(key, ())
        return jnp.where(chance < value(self.epsilon), 0.0, counts.mean)


class UCB(BanditAgent):
    """Mean + c √(ln t / N), N the pulls of an arm and t those of all, prior counts included: upper confidence bounds.

    Auer, Cesa-Bianchi & Fischer 2002, "Finite-time analysis of the multiarmed bandit problem",
    https://doi.org/10.1023/A:1013689704352. With `prior=0` and c = √2 it is their UCB1, which pulls every arm once
    first. With one success and one failure beforehand and a tuned c (0.1 for 10 pulls, 0.3 for 100 of 5 arms) it is
    much stronger, and the one to beat.

    Args:
        actions: k.
        bonus: c, an array to have it learned.
        prior: counts of each arm and outcome beforehand.
    """

    actions: int = eqx.field(static=True)
    bonus: Any = eqx.field(converter=constant_unless_array, default=0.2)
    prior: Any = eqx.field(converter=constant_unless_array, default=1.0)

    def index(self, counts, pull, *, key):
        del pull, key
        width = jnp.sqrt(jnp.log(jnp.maximum(jnp.sum(counts.pulls), 1.0)) / jnp.maximum(counts.pulls, 1e-9))
        return jnp.where(counts.pulls > 0, counts.mean + value(self.bonus) * width, jnp.inf)


class Thompson(BanditAgent):
    """Pulls the arm that is best in a sample of the posterior (Thompson 1933); optimistic: in no sample below the mean.

    The optimistic variant is that of May, Korda, Lee & Leslie 2012, "Optimistic Bayesian sampling in
    contextual-bandit problems", https://jmlr.org/papers/v13/may12a.html.

    Args:
        actions: k.
        optimistic: whether samples below the posterior mean are raised to it.
        prior: counts of each arm and outcome beforehand.
    """

    actions: int = eqx.field(static=True)
    optimistic: bool = eqx.field(static=True, default=False)
    prior: Any = eqx.field(converter=constant_unless_array, default=1.0)

    def index(self, counts, pull, *, key):
        del pull
        sample = jax.random.beta(key, counts.successes, counts.failures)
        return jnp.maximum(sample, counts.mean) if self.optimistic else sample


class Gittins(BanditAgent):
    """Pulls the arm with the highest finite-horizon Gittins index, from a table for one horizon.

    Niño-Mora 2011, "Computing a classical index for finite-horizon bandits", https://doi.org/10.1287/ijoc.1100.0398.
    The index policy is optimal with one arm and a known one, and near it otherwise.

    Args:
        actions: k.
        table: `metatower.envs.references.bandit.gittins_table(pulls)`: the index of an arm by pulls left, successes
            and failures. Counts begin from the uniform prior, which the table is for.
    """

    actions: int = eqx.field(static=True)
    prior: Any
    table: Constant

    def __init__(self, actions: int, table: Any):
        self.actions, self.prior, self.table = actions, Constant(1.0), Constant(jnp.asarray(table))

    def index(self, counts, pull, *, key):
        del key
        table = value(self.table)
        left = jnp.clip(len(table) - 1 - pull, 1, len(table) - 1)
        successes, failures = (jnp.round(x - 1).astype(jnp.int32) for x in (counts.successes, counts.failures))
        return table[left, successes, failures]


class BestArm(Informed, BanditAgent):
    """Is told the probabilities and pulls the best arm: no learner can gain more."""

    actions: int = eqx.field(static=True)
    prior: Any = eqx.field(converter=constant_unless_array, default=1.0)
    task: Any = None

    def index(self, counts, pull, *, key):
        del counts, pull, key
        return self.task
