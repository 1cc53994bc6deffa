"""PSRL: posterior sampling for tabular MDPs."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core.keys import fork
from metatower.envs.mdp import MDP
from metatower.envs.references.mdp import backward_induction
from metatower.envs.trial import Seen
from metatower.learners.acting import Agent


class Belief(eqx.Module):
    """What PSRL knows of an MDP, and how it acts in this episode."""

    visits: Float[Array, "state action state"]
    """Of each transition, from one of each: the flat Dirichlet prior."""
    gained: Float[Array, "state action"]
    """The sum of rewards."""
    tries: Float[Array, "state action"]
    policy: Int[Array, "horizon state"]
    """The best one in the MDP that was sampled for this episode."""
    time: Int[Array, ""]
    state: Float[Array, " state"]
    """The last state, one-hot."""


class PSRL(Agent):
    """Samples an MDP from the posterior for each episode, and acts in it as is best in that one.

    Osband, Russo & Van Roy 2013, "(More) efficient reinforcement learning via posterior sampling",
    https://arxiv.org/abs/1306.0940. The priors are those of `envs.mdp.RandomMDP`: flat Dirichlet transitions, mean
    rewards N(1, 1), rewards of standard deviation 1 around them; all leaves that can be learned.

    Differs from the paper in: the transition of the last step of an episode is not seen, as the next episode begins.

    Args:
        states, actions: how many.
        horizon: steps per episode.
    """

    mean: Float[Array, ""]
    precision: Float[Array, ""]
    """Of the prior of a mean reward, in units of that of one reward."""
    states: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(self, states: int = 10, actions: int = 5, horizon: int = 10):
        self.states, self.actions, self.horizon = states, actions, horizon
        self.mean, self.precision = jnp.ones(()), jnp.ones(())

    def begin(self, *, key: PRNGKeyArray) -> Belief:
        del key
        shape = self.states, self.actions
        policy = jnp.zeros((self.horizon, self.states), jnp.int32)
        state = jnp.zeros(self.states)
        return Belief(
            jnp.ones((*shape, self.states)), jnp.zeros(shape), jnp.zeros(shape), policy, jnp.zeros((), jnp.int32), state
        )

    def decide(self, memory: Belief, seen: Seen, *, key: PRNGKeyArray):
        place = memory.state[:, None] * seen.action  # of the last step; zero before the first
        went = place[:, :, None] * seen.observation * (1 - seen.done)
        visits, tries = memory.visits + went, memory.tries + place
        gained = memory.gained + place * seen.reward
        new = seen.done > 0
        policy = jax.lax.cond(
            new, lambda: self._sampled(visits, gained, tries, key).astype(jnp.int32), lambda: memory.policy
        )
        time = jnp.where(new, 0, memory.time)
        action = policy[jnp.minimum(time, self.horizon - 1), jnp.argmax(seen.observation)]
        belief = dataclasses.replace(memory, visits=visits, gained=gained, tries=tries, policy=policy, time=time + 1)
        return dataclasses.replace(belief, state=seen.observation), action, {}

    def _sampled(self, visits, gained, tries, key):
        key_transitions, key_rewards = fork(key, 2)
        drawn = jax.random.gamma(key_transitions, visits)
        precision = self.precision + tries
        mean = (self.precision * self.mean + gained) / precision
        rewards = mean + jax.random.normal(key_rewards, mean.shape) / jnp.sqrt(precision)
        return backward_induction(MDP(rewards, drawn / jnp.sum(drawn, axis=-1, keepdims=True)), self.horizon)[0]
