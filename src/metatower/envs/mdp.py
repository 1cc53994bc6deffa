"""Random tabular Markov decision processes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core.keys import fork
from metatower.envs.protocol import Discrete, Solvable, Step, running
from metatower.tasks.chance import uniforms


class MDP(eqx.Module):
    """The task: what every action in every state brings, and where it leads."""

    rewards: Float[Array, "state action"]
    """Mean rewards."""
    transitions: Float[Array, "state action state"]
    """Probabilities, of each next state."""


class RandomMDP(Solvable):
    """Mean rewards m(s, a) ~ N(1, 1), transitions flat Dirichlet, rewards N(m(s, a), 1); episodes start in state 0.

    Duan et al. 2016, "RL²", https://arxiv.org/abs/1611.02779, section 3.2, after Osband et al. 2013: 10 states, 5
    actions, horizon 10; `Trial(RandomMDP(), episodes=10)` is their n = 10. The state is observed, one-hot.

    Args:
        states, actions: how many.
        horizon: steps per episode.
        noise: standard deviation of a reward around its mean.
        mean, spread: of the mean rewards: mean and standard deviation; theirs are N(1, 1).
        concentration: of the Dirichlet distribution of transitions: 1 is flat, less is nearer to certainty.
    """

    noise: Float[Array, ""]
    mean: Float[Array, ""]
    spread: Float[Array, ""]
    concentration: float = eqx.field(static=True)
    states: int = eqx.field(static=True)
    choices: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(
        self,
        states: int = 10,
        actions: int = 5,
        horizon: int = 10,
        noise: float = 1.0,
        *,
        mean: float = 1.0,
        spread: float = 1.0,
        concentration: float = 1.0,
    ):
        if min(states, actions, horizon) < 1 or noise < 0:
            raise ValueError(
                f"RandomMDP: expected at least one state, action and step, and noise of at least 0, got {states}, "
                f"{actions}, {horizon}, {noise}."
            )
        if spread < 0 or concentration <= 0:
            raise ValueError(
                f"RandomMDP: expected spread of at least 0 and concentration above 0, got {spread} and {concentration}."
            )
        self.states, self.choices, self.horizon = states, actions, horizon
        self.noise, self.mean, self.spread = (jnp.array(float(each)) for each in (noise, mean, spread))
        self.concentration = float(concentration)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.states,)

    @property
    def actions(self) -> Discrete:
        return Discrete(self.choices)

    def sample_task(self, key: PRNGKeyArray) -> MDP:
        key_rewards, key_transitions = fork(key, 2)
        shape = self.states, self.choices
        whole = (*shape, self.states)
        if self.concentration == 1:
            drawn = jax.random.exponential(key_transitions, whole)  # normalised: a flat Dirichlet, without gammas
            transitions = drawn / jnp.sum(drawn, axis=-1, keepdims=True)
        else:
            transitions = jax.random.dirichlet(key_transitions, jnp.full(self.states, self.concentration), shape)
        return MDP(self.mean + self.spread * jax.random.normal(key_rewards, shape), transitions)

    def reset(self, key: PRNGKeyArray, task: MDP) -> tuple[Int[Array, ""], Float[Array, " state"]]:
        del key, task
        state = jnp.zeros((), jnp.int32)
        return state, self._shown(state)

    def step(
        self, key: PRNGKeyArray, state: Int[Array, ""], action: Int[Array, ""], task: MDP
    ) -> tuple[Int[Array, ""], Step]:
        (chance,) = uniforms(key, (2,))
        reward = task.rewards[state, action] + self.noise * _normal(chance[0])
        below = jnp.cumsum(task.transitions[state, action]) <= chance[1]
        state = jnp.minimum(jnp.sum(below, dtype=jnp.int32), self.states - 1)  # a sum may fall short of 1 by rounding
        return state, running(self._shown(state), reward)

    def solve(self, task: MDP) -> Float[Array, "horizon state action"]:
        worth = action_values(task, self.horizon)
        return worth - jnp.max(worth, axis=-1, keepdims=True)

    def shortfall(
        self, solution: Float[Array, "horizon state action"], state: Int[Array, ""], moves: Int[Array, ""]
    ) -> Float[Array, " action"]:
        return solution[jnp.minimum(moves, self.horizon - 1), state]

    def _shown(self, state):
        return jax.nn.one_hot(state, self.states)


def action_values(task: MDP, horizon: int) -> Float[Array, "horizon state action"]:
    """What is to be expected of each action and the best ones after it, by backward induction.

    Q_t(s, a) = m(s, a) + Σ P(s'|s, a) max_b Q_{t+1}(s', b), Q_horizon = 0. Exact.
    """

    def back(after, _):
        worth = task.rewards + task.transitions @ after
        return jnp.max(worth, axis=-1), worth

    start = jnp.zeros(task.rewards.shape[0], task.rewards.dtype)
    return jax.lax.scan(back, start, None, length=horizon, reverse=True)[1]


def _normal(chance: Float[Array, ""]) -> Float[Array, ""]:
    """The standard normal number that a uniform one stands for."""
    return jax.scipy.special.ndtri(jnp.clip(chance, 1e-7, 1 - 1e-7))
