"""Proximal policy optimisation over whole trials."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from metatower.core import Learner, Metrics, Rule, Scored, Tasks, pick, put, value
from metatower.core.keys import fork
from metatower.core.leaves import constant_unless_array, strong
from metatower.core.shares import mean_over_devices, own_share
from metatower.core.totals import summed
from metatower.envs.protocol import Solvable
from metatower.envs.trial import Seen, Trial, TrialState, World
from metatower.learners.acting import Played, play
from metatower.learners.rl2 import RL2
from metatower.rules.common import half_cosine


class Practice(eqx.Module):
    """The state of a `PPO`: the learned leaves of the agent, and the rule's memory."""

    leaves: list[Array]
    rule: PyTree
    count: Int[Array, ""]
    """Steps so far."""


class PPO(Learner):
    """Trains an agent with a memory, one storey up: it learns the agent's leaves from a distribution of worlds.

    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", https://arxiv.org/abs/1707.06347, equations 7 and
    9, on whole trials as Duan et al. 2016 train RL². One step plays `trials` trials of `episodes` episodes with the
    agent as it is, and then moves its leaves `epochs` times over all of them along the gradient of

        mean over steps of  −min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + value · ½ (V − R)² − entropy · H(π)

    with ρ the ratio of the new and the old probability of the action, R = A + V, and the advantages of Schulman et al.
    2016 (https://arxiv.org/abs/1506.02438, equation 16), Aₜ = δₜ + γλ Aₜ₊₁, δₜ = rₜ + γ Vₜ₊₁ − Vₜ. They cross the
    ends of episodes, since what is learned in one is used in the next, and stop at the end of the trial.

    With `signal="regret"`, in a `Solvable` environment, it learns from what each action is known to cost instead of
    from sampled rewards. The expected return of a trial is the sum of V* at the starts of its episodes plus the
    expected sum of A*(s, a) = Q*(s, a) − V*(s) over its steps (`envs.protocol.Solvable`), and the first does not depend
    on the agent. So A* may stand for the reward, with the same optimum and, at γ = 1, the same gradient in expectation:
    it is shaping by the potential V* (Ng, Harada & Russell 1999, "Policy invariance under reward transformations"), and
    the expectation over what the step brings. As A* is known for all actions, it enters as its mean under the policy
    (the all-action policy gradient of Sutton et al. 2000, theorem 1):

        rₜ = Σₐ π_old(a) A*(sₜ, a),    gain of a step = clipped(ρ(aₜ), Aₜ) + Σₐ π_old(a) clipped(ρ(a), A*(sₜ, a) − rₜ)

    with clipped(ρ, A) = min(ρ A, clip(ρ, 1 − ε, 1 + ε) A). Aₜ is left with what an action is worth for later actions:
    where it led, and what was learned from it. The agent sees the same sampled rewards in either case. But training
    uses the truth about its tasks, which simulated worlds can tell and real ones cannot; what is trained, and how it is
    judged, know nothing of it.

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
        settle: steps between which the weight of the entropy falls to zero, if it does: an agent that shall explore by
            what it has learned, and not by chance, is undecided no longer than it learns.
        chunk: trials worked on at the same time while learning, all of a minibatch if None. Fewer need less memory.
        unit: rewards are counted in this, so that values are about 1.
        endless: whether a trial whose last episode was cut off (`truncated`, not `terminated`) counts as one that goes
            on, with the value of what was seen last.
        signal: what is learned from: "reward", or "regret" with what is known of the tasks.
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
    settle: tuple[int, int] | None = eqx.field(static=True, default=None)
    chunk: int | None = eqx.field(static=True, default=None)
    unit: float = eqx.field(static=True, default=1.0)
    endless: bool = eqx.field(static=True, default=False)
    signal: Literal["reward", "regret"] = eqx.field(static=True, default="reward")
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
        if self.settle is not None and not 0 <= self.settle[0] < self.settle[1]:
            raise ValueError(f"PPO: expected settle as (begin, end) with 0 <= begin < end, got {self.settle}.")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"PPO: expected chunk of at least 1, or None for all at once, got {self.chunk}.")
        if self.signal not in ("reward", "regret"):
            raise ValueError(f"PPO: expected signal as 'reward' or 'regret', got {self.signal!r}.")

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
        return Practice(leaves, self.rule.start(leaves), jnp.zeros((), jnp.int32))

    def step(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> Practice:
        return self.update(state, data, key=key)[0]

    def update(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> tuple[Practice, Metrics]:
        key_play, key_order = fork(key, 2)
        agent = self.result(state)
        played = self._play(agent, data, key_play, self.trials, watched=self.signal == "regret")
        returns = self._mean(jnp.sum(played.outcome.reward, axis=1))
        lesson = jax.lax.stop_gradient(self._lesson(agent, played))
        # every device has a part of every group, and together they have what one device would have
        each = len(lesson.live) // self.minibatches
        groups = jax.tree.map(lambda x: x.reshape(each, self.minibatches, *x.shape[1:]).swapaxes(0, 1), lesson)
        order = jnp.concatenate([jax.random.permutation(k, self.minibatches) for k in fork(key_order, self.epochs)])

        undecided = value(self.entropy) * (1.0 if self.settle is None else half_cosine(state.count, *self.settle))

        def move(moved, index):
            leaves, rule = moved
            group = jax.tree.map(lambda x: x[index], groups)
            gradient, metrics = mean_over_devices(self._gradient(leaves, group, undecided), self.shared)
            rule, leaves = self.rule.step(rule, leaves, gradient)
            return (leaves, rule), metrics

        (leaves, rule), metrics = jax.lax.scan(move, (state.leaves, state.rule), order)
        metrics = {"loss": -returns, "return": returns, **jax.tree.map(jnp.mean, metrics)}
        return Practice(leaves, rule, state.count + 1), metrics

    def loss(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        played = self._play(self.result(state), data, key, self.judged or self.trials)
        returns = self._mean(jnp.sum(played.outcome.reward, axis=1))
        return -returns, {"return": returns}

    def stages(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        key_play, _ = fork(key, 2)
        rewards = self._play(self.result(state), data, key_play, self.trials).outcome.reward
        worlds = type(getattr(data, "environment", data)).__name__
        return OrderedDict({f"rewards of {worlds}": {"step": rewards}, **super().stages(state, data, key=key)})

    def result(self, state: Practice) -> RL2:
        """The agent with the leaves that `state` has reached."""
        return put(self.agent, state.leaves)

    def _play(self, agent: RL2, data: Tasks, key: PRNGKeyArray, trials: int, watched: bool = False) -> Played:
        def one(key):
            key_task, key_play = fork(key, 2)
            world = data.sample(key_task).support
            trial = Trial(world.environment, episodes=self.episodes)
            note = shortfall(world) if watched else None
            return play(agent, trial, world.task, key=key_play, note=note)

        keys = own_share(fork(key, trials), self.shared)
        devices = 1 if self.shared is None else jax.lax.axis_size(self.shared)
        if len(keys) * devices != trials:
            raise ValueError(f"PPO: {trials} trials cannot be shared equally by {devices} devices.")
        return jax.vmap(one)(keys)

    def _lesson(self, agent: RL2, played: Played) -> "Lesson":
        values, known = played.about["value"], None
        rewards = played.outcome.reward / self.unit
        if played.noted is not None:
            log_probability, short = played.about["log_probabilities"], played.noted / self.unit
            rewards = jnp.sum(jnp.exp(log_probability) * short, axis=-1)
            known = Known(log_probability, short - rewards[..., None])
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
        square = (raw - centre) ** 2
        if known is not None:
            square = square + jnp.sum(jnp.exp(known.log_probability) * known.advantage**2, axis=-1)
        spread = jnp.sqrt(self._mean(jnp.mean(square * live)) / count) + 1e-8
        if known is not None:
            known = dataclasses.replace(known, advantage=known.advantage / spread)
        seen = jax.tree.map(lambda x: x[:, :-1], played.seen)
        standard = (raw - centre) / spread
        return Lesson(seen, played.action, played.about["log_probability"], standard, raw + values, live, known)

    def _gradient(self, leaves: list[Array], lesson: "Lesson", undecided: Any) -> tuple[list[Array], Metrics]:
        """Of the surrogate, `chunk` trials at a time."""
        steps = mean_over_devices(jnp.sum(lesson.live), self.shared)

        def part(lesson):
            return jax.grad(self._surrogate, has_aux=True)(leaves, lesson, undecided, steps)

        return part(lesson) if self.chunk is None else summed(part, lesson, self.chunk)

    def _surrogate(
        self, leaves: list[Array], lesson: "Lesson", undecided: Any, steps: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        """The loss of some trials as their part of that of all, which have so many live `steps`."""
        policy, values = jax.vmap(put(self.agent, leaves).over)(lesson.seen)
        change = policy.log_probability(lesson.action) - lesson.log_probability
        ratio, limit = jnp.exp(change), value(self.limit)
        gain = clipped(ratio, lesson.advantage, limit)
        if lesson.known is not None:
            before = lesson.known.log_probability
            ratios = jnp.exp(policy.log_probabilities() - before)
            gain = gain + jnp.sum(jnp.exp(before) * clipped(ratios, lesson.known.advantage, limit), axis=-1)
        entropy, error = policy.entropy(), 0.5 * (values - lesson.returned) ** 2
        terms = {"gain": gain, "entropy": entropy, "value error": error, "kl": ratio - 1 - change}
        means = {name: jnp.sum(term * lesson.live) / steps for name, term in terms.items()}
        loss = value(self.value) * means["value error"] - undecided * means["entropy"] - means.pop("gain")
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
    known: "Known | None" = None
    """What is known of all actions, where the regret is learned from."""


class Known(eqx.Module):
    """Of every action, `[..., actions]`: how likely it was, and what it was worth at once."""

    log_probability: Float[Array, "*steps actions"]
    advantage: Float[Array, "*steps actions"]
    """A* less its mean under the policy that played, in the units of `Lesson.advantage`."""


def shortfall(world: World) -> Callable[[TrialState], Float[Array, " actions"]]:
    """A* of every action as a function of the place of a trial in this world, which is solved once."""
    environment = world.environment
    if not isinstance(environment, Solvable):
        raise TypeError(
            f"PPO: only in a `Solvable` environment is the regret known, and {type(environment).__name__} is none. "
            'Take signal="reward", or give it the methods `solve` and `shortfall`.'
        )
    solution = environment.solve(world.task)
    return lambda place: environment.shortfall(solution, place.inner, place.moves)


def clipped(ratio: Float[Array, "*n"], advantage: Float[Array, "*n"], limit: Any) -> Float[Array, "*n"]:
    """min(ρ A, clip(ρ, 1 − ε, 1 + ε) A): Schulman et al. 2017, equation 7, of each entry."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - limit, 1 + limit) * advantage)


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
