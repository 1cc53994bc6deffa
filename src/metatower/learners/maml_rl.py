"""MAML for reinforcement learning: a task is learned by a few policy-gradient steps."""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metatower.core import Descend, Objective, Scored
from metatower.core.keys import fork
from metatower.envs.protocol import Discrete, Environment
from metatower.envs.trial import Seen, Trial, World
from metatower.learners.acting import Agent, play
from metatower.learners.posdef import solve
from metatower.nets.policy import Policy
from metatower.rules import sgd


class Trajectories(eqx.Module):
    """What a policy did in a world, and what it was worth, `[trajectory, time, ...]`."""

    observation: Float[Array, "trajectory time ..."]
    action: Any
    log_probability: Float[Array, "trajectory time"]
    """Of what was done, for who did it; 0 after the end."""
    weight: Float[Array, "trajectory time"]
    """The advantage times γ^t; 0 after the end."""
    live: Float[Array, "trajectory time"]
    value: Float[Array, ""]
    """Minus the mean discounted return."""
    returned: Float[Array, ""]
    """The mean return, not discounted."""


class PolicyReturn(Objective):
    """Minus the mean discounted return of a policy in a `World`; its derivatives, of any order, are estimated.

    The value is that of `trajectories` episodes. A sample has no derivative, so that of the expectation is estimated
    by the score function, with the surrogate of Farquhar, Whiteson & Foerster 2019, "Loaded DiCE: Trading off Bias and
    Variance in Any-Order Score Function Estimators for Reinforcement Learning", https://arxiv.org/abs/1909.10549:

        Σ_t γ^t (f(w_t) − f(w_t − ℓ_t)) A_t,    w_t = credit · w_{t−1} + ℓ_t,    f(w) = exp(w − ⊥(w))

    with ℓ_t the log-probability of action t and A_t its advantage, held fixed (⊥). At credit 1 and with a baseline
    that looks at other trajectories only ("time"), the derivatives are unbiased: so is then the meta-gradient of the
    lift, up to what the noise of the inner step itself does, which vanishes as trajectories grow. At credit 0 second
    derivatives have less variance and some bias (Rothfuss et al. 2019, "ProMP", https://arxiv.org/abs/1810.06784).

    Args:
        net: takes observations `[n, ...]` and gives a distribution over actions, see `nets.policy.Policy`.
        trajectories: episodes in one evaluation.
        discount: γ.
        baseline: "time": the mean return-to-go of the other trajectories at that time; "linear": a ridge regression
            of returns on the observation, its square, and a cubic of time (Duan et al. 2016, "Benchmarking deep
            reinforcement learning"), fitted to the same trajectories; "none".
        credit: of earlier actions in second derivatives.
        standard: whether the *gradient* is that of returns in units of the advantages' standard deviation, so that one
            inner rate suits worlds of any scale; not where a finished adaptation is judged.
        judged: episodes where a finished adaptation is judged; `trajectories` if None.
    """

    net: Any
    trajectories: int = eqx.field(static=True, default=20)
    discount: float = eqx.field(static=True, default=0.99)
    baseline: Literal["time", "linear", "none"] = eqx.field(static=True, default="linear")
    credit: float = eqx.field(static=True, default=1.0)
    standard: bool = eqx.field(static=True, default=False)
    judged: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        least = 2 if self.baseline == "time" or self.standard else 1
        if self.trajectories < least:
            raise ValueError(f"PolicyReturn: expected trajectories of at least {least}, got {self.trajectories}.")

    def as_judge(self) -> "PolicyReturn":
        return dataclasses.replace(self, trajectories=self.judged or self.trajectories, standard=False)

    def loss(self, data: World, *, key: PRNGKeyArray) -> Scored:
        if not isinstance(data, World):
            raise TypeError(f"PolicyReturn is scored in a `World(environment, task)`, got {type(data).__name__}.")
        episodes = self.played(data, key=key)
        log = self.log_probability(episodes)
        so_far = jax.lax.scan(lambda w, now: (self.credit * w + now,) * 2, jnp.zeros(len(log)), log.T)[1].T
        surrogate = -jnp.sum((_magic(so_far) - _magic(so_far - log)) * episodes.weight) / len(log)
        # its value is zero: only the derivative is wanted of it
        return episodes.value + surrogate, {"return": episodes.returned}

    def played(self, data: World, *, key: PRNGKeyArray) -> Trajectories:
        """Episodes of the policy in a world; nothing in them has a derivative."""
        played = self._play(data, key)
        observations = played.seen.observation[:, :-1]
        number, time = played.live.shape
        live, rewards = played.live.astype(jnp.float32), played.outcome.reward
        to_go = jax.lax.scan(
            lambda later, now: (now + self.discount * later,) * 2, jnp.zeros(number), rewards.T, reverse=True
        )[1].T
        advantage = (to_go - self._baseline(observations, to_go, live)) * live
        if self.standard:
            spread = jnp.sqrt(jnp.sum(advantage**2) / jnp.maximum(jnp.sum(live), 1))
            advantage = advantage / (spread + 1e-6)
        weight = advantage * self.discount ** jnp.arange(time)
        log, returned = played.about["log_probability"] * live, jnp.mean(jnp.sum(rewards, axis=1))
        value = -jnp.mean(to_go[:, 0])
        return jax.lax.stop_gradient(Trajectories(observations, played.action, log, weight, live, value, returned))

    def log_probability(self, episodes: Trajectories) -> Float[Array, "trajectory time"]:
        """Of what was done, for the policy as it is now; 0 after the end."""
        number, time = episodes.live.shape
        seen, action = (x.reshape(number * time, *x.shape[2:]) for x in (episodes.observation, episodes.action))
        return self.net(seen).log_probability(action).reshape(number, time) * episodes.live

    def _play(self, world: World, key: PRNGKeyArray):
        actor = jax.lax.stop_gradient(Reflex(self.net, world.environment.actions.size))
        trial = Trial(world.environment, episodes=1)
        played = jax.vmap(lambda key: play(actor, trial, world.task, key=key))(fork(key, self.trajectories))
        return played

    def _baseline(self, seen: Array, to_go: Array, live: Array) -> Float[Array, "trajectory time"]:
        number, time = to_go.shape
        if self.baseline == "none":
            return jnp.zeros_like(to_go)
        if self.baseline == "time":
            others = jnp.sum(live, axis=0) - live
            return (jnp.sum(to_go * live, axis=0) - to_go * live) / jnp.maximum(others, 1)
        flat, clock = seen.reshape(number, time, -1), jnp.broadcast_to(jnp.arange(time) / 100, (number, time))
        parts = [flat, flat**2, *(clock[..., None] ** i for i in range(4))]
        features = jnp.concatenate(parts, axis=-1) * live[..., None]
        rows = features.reshape(number * time, -1)
        square = rows.T @ rows + 1e-3 * jnp.eye(rows.shape[1])
        return features @ solve(square, rows.T @ (to_go * live).reshape(-1))


class Reflex(Agent):
    """Acts by a policy on what is seen now, and remembers nothing: an adapted policy as an agent.

    Args:
        net: takes observations `[n, ...]`.
        actions: numbers that encode an action.
    """

    net: Any
    actions: int = eqx.field(static=True)

    def begin(self, *, key: PRNGKeyArray) -> PyTree:
        del key

    def decide(self, memory: PyTree, seen: Seen, *, key: PRNGKeyArray):
        policy = jax.tree.map(lambda leaf: leaf[0], self.net(seen.observation[None]))
        action = policy.sample(key)
        about = {"log_probability": policy.log_probability(action), "entropy": policy.entropy()}
        return memory, action, about


def _magic(w: Array) -> Array:
    """1, whose derivative is that of w."""
    return jnp.exp(w - jax.lax.stop_gradient(w))


def maml_rl(
    environment: Environment,
    *,
    key: PRNGKeyArray,
    rate: PyTree = 0.1,
    steps: int = 1,
    hidden: tuple[int, ...] = (64, 64),
    scale: float = 0.5,
    **objective: Any,
) -> Descend:
    """MAML's learner for worlds: `steps` policy-gradient steps from initial weights that the storey above learns.

    Finn, Abbeel & Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
    https://arxiv.org/abs/1703.03400, algorithm 3. Train it as `lift(maml_rl(environment, key=key), adam(1e-3),
    batch=20)` on `Worlds(environment)`; with `gradient=FirstOrder()` for the first-order variant, with `Evolution()`
    for ES-MAML (Song et al. 2020, https://arxiv.org/abs/1910.01215).

    Args:
        environment: says what is seen and done.
        rate: the inner rate: a number (fixed), an array or `Positive` (learned), or one per leaf from `rates_for`.
        steps: inner steps per world.
        hidden: units of the layers.
        scale: the standard deviation of continuous actions to begin with.
        objective: of `PolicyReturn`.

    Differs from the paper in: the outer rule is whatever `lift` is given, not TRPO (`ProMP` trains it by proximal
    steps); the second derivatives have all
    their terms, where the authors' code leaves out those of the sampling.
    """
    actions = environment.actions
    inputs = 1
    for side in environment.observation_shape:
        inputs *= side
    discrete = isinstance(actions, Discrete)
    net = Policy((inputs, *hidden), actions.size, key=key, discrete=discrete, scale=scale)
    return Descend(PolicyReturn(net, **objective), sgd(rate), steps)
