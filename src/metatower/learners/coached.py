"""The training of an acting agent under a coach: hierarchical reinforcement learning over RL learners."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Learner, Metrics, Scored, Tasks, value
from metatower.core.keys import fork
from metatower.learners.ppo import PPO, Practice
from metatower.learners.rl2 import RL2
from metatower.nets.coach import LEVERS, NOTED, Coach
from metatower.rules import scaled

CHANGE, LIMIT = 0.5, 4.0
"""By how much the logarithm of a lever changes at most in one step, and how far it may move from its default."""
QUICKLY, SLOWLY = 0.5, 0.15
"""How fast the averages of the return forget."""
EPS = 1e-6


class CoachedRun(eqx.Module):
    """The state of a coached training."""

    practice: Practice
    """Of the trainer: the agent's weights, and its rule's memory."""
    logs: Float[Array, " lever"]
    memory: Any
    noted: Float[Array, " NOTED"]
    began: Float[Array, "2"]
    """Return and entropy of the first step."""
    averages: Float[Array, "2"]
    """Of the return, quickly and slowly forgetting."""
    count: Int[Array, ""]


class Coached(Learner):
    """A run of `PPO` on one distribution of worlds, in which a coach moves the trainer's hyper-parameters.

    Storey 0 is the agent that learns while it acts (`RL2`), storey 1 its training, and the coach's weights are what
    storey 2 learns. As in `Guided`, the environment of the coach is the run itself, and its reward what the whole run
    is worth: the expected return of a trial with the agent that it ends with, so that no greedy proxy can be exploited.
    Nothing can be differentiated through worlds: lift it with `gradients.Evolution`, and `learn=` the coach alone.

        log h_k = log h_{k−1} + coach(seen_k),    h = (factor of the rule's steps, entropy weight, 1 − γ, 1 − λ)

    Seen are, of the training steps alone: the return against the first one's and against its own quick and slow
    averages, in units of the first; the policy's entropy and its fall; the logs of how far the policy moved (KL) and of
    the value's error; how much of the horizon is over; and the levers' distance from their defaults.

    The idea is that of hyper-parameters that are learned online (Xu et al. 2018, "Meta-gradient reinforcement
    learning", https://arxiv.org/abs/1805.09801, for γ and λ; Parker-Holder et al. 2022, "Automated reinforcement
    learning", section 4). It differs in that the coach is trained once, on whole runs over many distributions, and
    held fixed on a new one.

    Args:
        trainer: a `PPO`; its agent's weights are where every run starts.
        coach: moves the levers.
        logs: where their logarithms start: the default.
        steps: of the trainer in one run, K.
        horizon: steps that the coach counts on; `steps` may be more or less.
        every: steps per turn of the manager.
    """

    trainer: PPO
    coach: Coach
    logs: Float[Array, " lever"]
    steps: int = eqx.field(static=True, default=20)
    horizon: int = eqx.field(static=True, default=20)
    every: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        if jnp.shape(self.logs) != (len(LEVERS),):
            raise ValueError(
                f"Coached: expected logs of shape ({len(LEVERS)},), one each for {', '.join(LEVERS)}, "
                f"got {jnp.shape(self.logs)}. `levers(trainer)` gives those of a trainer."
            )
        for name in ("horizon", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"Coached: expected {name} of at least 1, got {getattr(self, name)}.")

    def start(self, *, key: PRNGKeyArray) -> CoachedRun:
        def nought(*shape):
            return jnp.zeros(shape, self.logs.dtype)

        practice = self.trainer.start(key=key)
        first = jnp.zeros((), jnp.int32)
        return CoachedRun(practice, self.logs, self.coach.start(), nought(NOTED), nought(2), nought(2), first)

    def update(self, state: CoachedRun, data: Tasks, *, key: PRNGKeyArray) -> tuple[CoachedRun, Metrics]:
        key_coach, key_train = fork(key, 2)
        turn = state.count % self.every == 0
        memory, changes = self.coach.advise(state.memory, state.noted, turn, key=key_coach)
        moved = state.logs + jnp.clip(changes, -CHANGE, CHANGE)
        logs = self.logs + jnp.clip(moved - self.logs, -LIMIT, LIMIT)
        practice, metrics = self.at(logs).update(state.practice, data, key=key_train)
        now = jnp.stack([metrics["return"], metrics["entropy"]])
        first = state.count == 0
        began = jnp.where(first, now, state.began)
        forget = jnp.array([QUICKLY, SLOWLY])
        averages = jnp.where(first, now[0], state.averages + forget * (now[0] - state.averages))
        noted = self._noted(now, began, averages, metrics, logs, state.count + 1)
        return CoachedRun(practice, logs, memory, noted, began, averages, state.count + 1), metrics

    def step(self, state: CoachedRun, data: Tasks, *, key: PRNGKeyArray) -> CoachedRun:
        return self.update(state, data, key=key)[0]

    def loss(self, state: CoachedRun, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        return self.trainer.loss(state.practice, data, key=key)

    def result(self, state: CoachedRun) -> RL2:
        """The agent that a run has ended with."""
        return self.trainer.result(state.practice)

    def at(self, logs: Float[Array, " lever"]) -> PPO:
        """The trainer with its levers there."""
        factor, entropy, discount, trace = jnp.exp(logs)
        return dataclasses.replace(
            self.trainer,
            rule=scaled(self.trainer.rule, factor),
            entropy=entropy,
            discount=1 - jnp.minimum(discount, 1.0),
            trace=1 - jnp.minimum(trace, 1.0),
        )

    @property
    def height(self) -> int:
        return self.trainer.height

    def _noted(self, now, began, averages, metrics: Metrics, logs, done) -> Float[Array, " NOTED"]:
        unit = jnp.abs(began[0]) + EPS
        numbers = [
            (now[0] - began[0]) / unit, (now[0] - averages[0]) / unit, (averages[0] - averages[1]) / unit,
            now[1], now[1] - began[1],
            jnp.log(jnp.maximum(metrics["kl"], 0.0) + EPS) / 4 + 1.5, jnp.log(metrics["value error"] + EPS) / 4 + 1,
            done / self.horizon,
        ]  # fmt: skip
        return jnp.clip(jnp.concatenate([jnp.stack(numbers).astype(logs.dtype), logs - self.logs]), -3.0, 3.0)


def levers(trainer: PPO) -> Float[Array, " lever"]:
    """The logarithms of a trainer's own levers, whose rule moves as it does: what `Coached` starts from.

    >>> from metatower.envs import BernoulliBandit
    >>> from metatower.learners import rl2
    >>> from metatower.rules import sgd
    >>> import jax
    >>> agent = rl2(BernoulliBandit(2), key=jax.random.key(0), size=4)
    >>> jnp.exp(levers(PPO(agent, sgd(0.1), 10, entropy=0.5, discount=0.75, trace=0.0))).tolist()
    [1.0, 0.5, 0.25, 1.0]
    """
    entropy, discount, trace = (value(each) for each in (trainer.entropy, trainer.discount, trainer.trace))
    return jnp.log(jnp.maximum(jnp.asarray((1.0, entropy, 1 - discount, 1 - trace), jnp.float32), EPS))
