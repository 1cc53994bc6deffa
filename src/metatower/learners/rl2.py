"""RL²: a recurrent policy whose memory does the learning."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metatower.core import Metrics
from metatower.envs.protocol import Discrete, Environment
from metatower.envs.trial import Seen
from metatower.learners.acting import Agent
from metatower.nets.policy import ActorCritic, Categorical, Distribution

INPUTS = ("observation", "action", "reward", "done")


class RL2(Agent):
    """A recurrent network that sees its rewards and keeps its memory across episodes learns while it acts.

    Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning",
    https://arxiv.org/abs/1611.02779; Wang et al. 2016, "Learning to reinforcement learn",
    https://arxiv.org/abs/1611.05763.

        h, π, V = net(h, [o, a, r, d]),    a ~ π

    with a, r, d the last action, what it brought, and whether it ended an episode. The memory is fresh in each trial.
    Train it by `PPO` on whole trials, or as any other learner by `lift(agent, rule, gradient=Evolution())`; then what
    counts is the return of one episode after `steps` others.

    Args:
        net: an `ActorCritic`, see `rl2`.
        actions: numbers that encode an action.
        steps: episodes of one adaptation.
        inputs: what the network is told; what is left out is 0 to it. For ablations: without "reward" it cannot learn.
        greedy: takes the likeliest action instead of drawing one.
        reward_unit: rewards are divided by this before the network sees them.

    Differs from the papers in: actor and critic share the memory; the network starts from `nets.policy`'s weights.
    """

    net: ActorCritic
    actions: int = eqx.field(static=True)
    steps: int = eqx.field(static=True, default=1)
    inputs: tuple[str, ...] = eqx.field(static=True, default=INPUTS)
    greedy: bool = eqx.field(static=True, default=False)
    reward_unit: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if unknown := [name for name in self.inputs if name not in INPUTS]:
            raise ValueError(f"RL2: expected inputs among {', '.join(INPUTS)}, got {', '.join(unknown)}.")

    def begin(self, *, key: PRNGKeyArray) -> PyTree:
        del key
        return self.net.start()

    def decide(self, memory: PyTree, seen: Seen, *, key: PRNGKeyArray):
        memory, policy, value = self.net(memory, self.told(seen))
        action = policy.mode() if self.greedy else policy.sample(key)
        about: Metrics = {
            "log_probability": policy.log_probability(jax.lax.stop_gradient(action)),
            "entropy": policy.entropy(),
            "value": value,
        }
        if isinstance(policy, Categorical):
            about["log_probabilities"] = policy.log_probabilities()
        return memory, action, about

    def told(self, seen: Seen) -> Float[Array, " features"]:
        """The input of the network."""
        parts = {
            "observation": seen.observation.reshape(-1),
            "action": seen.action,
            "reward": seen.reward[None] / self.reward_unit,
            "done": seen.done[None],
        }
        return jnp.concatenate([part if name in self.inputs else 0 * part for name, part in parts.items()])

    def over(self, seen: Seen) -> tuple[Distribution, Float[Array, " time"]]:
        """The policy and the value at each step of a trial, `[time, ...]`, from its start."""
        return self.net.over(jax.vmap(self.told)(seen))


def rl2(environment: Environment, *, key: PRNGKeyArray, steps: int = 1, reward_unit: float = 1.0, **net) -> RL2:
    """An RL² agent for an environment, with fresh weights.

    Args:
        environment: says what is seen and done.
        steps: episodes of one adaptation.
        reward_unit: rewards are divided by this before the network sees them.
        net: of `ActorCritic`: `size`, `memory`, `hidden`, `scale`.
    """
    actions = environment.actions
    discrete = isinstance(actions, Discrete)
    return RL2(
        net=ActorCritic(Seen.size(environment), actions.size, key=key, discrete=discrete, **net),
        actions=actions.size,
        steps=steps,
        reward_unit=reward_unit,
    )
