"""Proximal policy optimisation over whole trials."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from metatower.core import Learner, Metrics, Rule, Scored, Tasks, pick, put, value
from metatower.core.keys import fork
from metatower.core.leaves import constant_unless_array, strong
from metatower.core.shares import mean_over_devices, own_share
from metatower.envs.trial import Seen, Trial
from metatower.learners.acting import Played, play
from metatower.learners.rl2 import RL2


class Practice(eqx.Module):
    """The state of a `PPO`: the learned leaves of the agent, and the rule's memory."""

    leaves: list[Array]
    rule: PyTree


class PPO(Learner):
    """Trains an agent with a memory, one storey up: it learns the agent's leaves from a distribution of worlds.

    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", https://arxiv.org/abs/1707.06347, equations 7 and
    9, on whole trials as Duan et al. 2016 train RL². One step plays `trials` trials of `episodes` episodes with the
    agent as it is, and then moves its leaves `epochs` times over all of them along the gradient of

        mean over steps of  −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + value · ½ (V − R)² − entropy · H(π)

    with ρ the ratio of the new and the old probability of the action, R = A + V, and the advantages of Schulman et al.
    2016 (https://arxiv.org/abs/1506.02438, equation 16), Aₜ = δₜ + γλ Aₜ₊₁, δₜ = rₜ + γ Vₜ₊₁ − Vₜ. They cross the
    ends of episodes, since what is learned in one is used in the next, and stop at the end of the trial.

    Its data is a `Tasks` of worlds. It is trained by `training.train` as every top storey is. Hyper-parameters follow
    the convention of all rules: a Python number is fixed, an array may be learned by the storey above; use `Evolution`
    there, as no derivative goes through the worlds.

    Args:
        agent: an `RL2`, with any memory ("none" for plain PPO).
        rule: how leaves move, at each minibatch: `clip(adam(3e-4), 0.5)`.
        episodes: of one trial.
        trials: played in one step.
        epochs: how often each trial is used.
        minibatches: groups of trials, the same in every epoch, in another order. It divides `trials`.
        discount, trace: γ and λ.
        limit: ε.
        entropy, value: weights in the loss.
        unit: rewards are counted in this, so that values are about 1.
        endless: whether a trial whose last episode was cut off (`truncated`, not `terminated`) counts as one that goes
            on, with the value of what was seen last.
        steps: of one adaptation, for the storey above.
        judged: trials in one `loss`; `trials` if None.
        shared: the mesh axis over which the trials are spread; set by `metatower.core.sharding`.

    Differs from the papers in: minibatches are of whole trials and stay together, which changes nothing in
    distribution as trials are independent; advantages are standardised over all trials of the step.
    """

    agent: RL2
    rule: Rule
    episodes: int = eqx.field(static=True)
    trials: int = eqx.field(static=True, default=1024)
    epochs: int = eqx.field(static=True, default=4)
    minibatches: int = eqx.field(static=True, default=4)
    discount: Any = eqx.field(converter=constant_unless_array, default=0.99)
    trace: Any = eqx.field(converter=constant_unless_array, default=0.95)
    limit: Any = eqx.field(converter=constant_unless_array, default=0.2)
    entropy: Any = eqx.field(converter=constant_unless_array, default=0.01)
    value: Any = eqx.field(converter=constant_unless_array, default=0.5)
    unit: float = eqx.field(static=True, default=1.0)
    endless: bool = eqx.field(static=True, default=False)
    steps: int = eqx.field(static=True, default=1)
    judged: int | None = eqx.field(static=True, default=None)
    shared: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        for name in ("episodes", "trials", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"PPO: expected {name} of at least 1, got {getattr(self, name)}.")
        if self.trials % self.minibatches:
            raise ValueError(
                f"PPO: {self.trials} trials do not make {self.minibatches} minibatches of equal size. "
                "Take a number of trials that `minibatches` divides."
            )

    @property
    def height(self) -> int:
        return self.agent.height + 1

    @property
    def axis(self) -> str | None:
        return self.shared

    @property
    def parts(self) -> int:
        return self.trials // self.minibatches

    def shared_over(self, axis: str) -> "PPO":
        return dataclasses.replace(self, shared=axis)

    def start(self, *, key: PRNGKeyArray) -> Practice:
        del key
        leaves = [strong(leaf) for leaf in pick(self.agent)]
        return Practice(leaves, self.rule.start(leaves))

    def step(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> Practice:
        return self.update(state, data, key=key)[0]

    def update(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> tuple[Practice, Metrics]:
        key_play, key_order = fork(key, 2)
        agent = self.result(state)
        played = self._play(agent, data, key_play, self.trials)
        returns = self._mean(jnp.sum(played.outcome.reward, axis=1))
        lesson = jax.lax.stop_gradient(self._lesson(agent, played))
        # every device has a part of every group, and together they have what one device would have
        each = len(lesson.live) // self.minibatches
        groups = jax.tree.map(lambda x: x.reshape(each, self.minibatches, *x.shape[1:]).swapaxes(0, 1), lesson)
        order = jnp.concatenate([jax.random.permutation(k, self.minibatches) for k in fork(key_order, self.epochs)])

        def move(state, index):
            group = jax.tree.map(lambda x: x[index], groups)
            gradient, metrics = jax.grad(self._surrogate, has_aux=True)(state.leaves, group)
            gradient, metrics = mean_over_devices((gradient, metrics), self.shared)
            return Practice(*reversed(self.rule.step(state.rule, state.leaves, gradient))), metrics

        state, metrics = jax.lax.scan(move, state, order)
        return state, {"loss": -returns, "return": returns, **jax.tree.map(jnp.mean, metrics)}

    def loss(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        played = self._play(self.result(state), data, key, self.judged or self.trials)
        returns = self._mean(jnp.sum(played.outcome.reward, axis=1))
        return -returns, {"return": returns}

    def result(self, state: Practice) -> RL2:
        """The agent with the leaves that `state` has reached."""
        return put(self.agent, state.leaves)

    def _play(self, agent: RL2, data: Tasks, key: PRNGKeyArray, trials: int) -> Played:
        def one(key):
            key_task, key_play = fork(key, 2)
            world = data.sample(key_task).support
            return play(agent, Trial(world.environment, episodes=self.episodes), world.task, key=key_play)

        keys = own_share(fork(key, trials), self.shared)
        devices = 1 if self.shared is None else jax.lax.axis_size(self.shared)
        if len(keys) * devices != trials:
            raise ValueError(f"PPO: {trials} trials cannot be shared equally by {devices} devices.")
        return jax.vmap(one)(keys)

    def _lesson(self, agent: RL2, played: Played) -> "Lesson":
        rewards, values = played.outcome.reward / self.unit, played.about["value"]
        over, cut, end = played.outcome.over, played.outcome.truncated, jnp.zeros(len(values))
        if self.endless:
            last = jax.tree.map(lambda x: x[:, -1], played.seen)
            end = jax.vmap(lambda memory, seen: agent.net(memory, agent.told(seen))[2])(played.memory, last)
        goes_on = ~over | (cut if self.endless else False)
        after = jnp.where(goes_on, jnp.concatenate([values[:, 1:], end[:, None]], axis=1), 0.0)
        discount, trace = value(self.discount), value(self.trace)
        raw = jax.vmap(lambda r, v, a, o: advantages(r, v, a, o, discount, trace))(rewards, values, after, over)
        live = played.live.astype(raw.dtype)
        count = self._mean(jnp.mean(live))
        centre = self._mean(jnp.mean(raw * live)) / count
        spread = jnp.sqrt(self._mean(jnp.mean((raw - centre) ** 2 * live)) / count)
        seen = jax.tree.map(lambda x: x[:, :-1], played.seen)
        standard = (raw - centre) / (spread + 1e-8)
        return Lesson(seen, played.action, played.about["log_probability"], standard, raw + values, live)

    def _surrogate(self, leaves: list[Array], lesson: "Lesson") -> tuple[Float[Array, ""], Metrics]:
        policy, values = jax.vmap(put(self.agent, leaves).over)(lesson.seen)
        change = policy.log_probability(lesson.action) - lesson.log_probability
        ratio, limit = jnp.exp(change), value(self.limit)
        clipped = jnp.clip(ratio, 1 - limit, 1 + limit)
        gain = jnp.minimum(ratio * lesson.advantage, clipped * lesson.advantage)
        entropy, error = policy.entropy(), 0.5 * (values - lesson.returned) ** 2
        terms = {"gain": gain, "entropy": entropy, "value error": error, "kl": ratio - 1 - change}
        steps = mean_over_devices(jnp.sum(lesson.live), self.shared)
        means = {name: jnp.sum(term * lesson.live) / steps for name, term in terms.items()}
        loss = value(self.value) * means["value error"] - value(self.entropy) * means["entropy"] - means.pop("gain")
        return loss, means

    def _mean(self, x: Array) -> Float[Array, ""]:
        return mean_over_devices(jnp.mean(x), self.shared)


class Lesson(eqx.Module):
    """What a step of `PPO` learns from, `[trial, time, ...]`."""

    seen: Seen
    action: Any
    log_probability: Float[Array, "*steps"]
    advantage: Float[Array, "*steps"]
    """Standardised."""
    returned: Float[Array, "*steps"]
    """What the value should have been."""
    live: Float[Array, "*steps"]


def advantages(
    rewards: Float[Array, " time"],
    values: Float[Array, " time"],
    after: Float[Array, " time"],
    over: Bool[Array, " time"],
    discount: Any,
    trace: Any,
) -> Float[Array, " time"]:
    """Generalised advantages of one trial (Schulman et al. 2016, equation 16), which cross the ends of its episodes.

    Args:
        values: before each step.
        after: the value of what follows each step; 0 where nothing does.
        over: whether the trial is over after the step.
        discount, trace: γ and λ.

    >>> advantages(jnp.ones(2), jnp.zeros(2), jnp.zeros(2), jnp.array([False, True]), 1.0, 0.5).tolist()
    [1.5, 1.0]
    """

    def back(later, step):
        reward, value, following, ends = step
        now = reward + discount * following - value + discount * trace * jnp.where(ends, 0.0, later)
        return now, now

    return jax.lax.scan(back, jnp.zeros(()), (rewards, values, after, over), reverse=True)[1]
