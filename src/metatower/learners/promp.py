"""Proximal meta-policy search: PPO around an adaptation by policy gradients."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Descend, Expected, Learner, Metrics, Rule, Scored, Tasks, pick, put, value
from metatower.core.keys import fork
from metatower.core.leaves import constant_unless_array, strong
from metatower.core.tower import Descent
from metatower.learners.maml_rl import PolicyReturn, Trajectories
from metatower.learners.ppo import Practice, clipped


class ProMP(Learner):
    """Trains a learner that adapts by policy gradients, one storey up, with many steps for each batch of episodes.

    Rothfuss, Lee, Clavera, Asfour & Abbeel 2019, "ProMP: Proximal meta-policy search",
    https://arxiv.org/abs/1810.06784, algorithm 1. One step plays `batch` worlds: episodes to adapt to, and episodes of
    the adapted policy. Then it moves the learner's leaves θ `epochs` times along the gradient of

        mean over worlds of  clip(θ') − penalty · KL(π_before, π_θ),    θ' = θ + α ∇ Σₜ ρₜ(θ) Aₜ

    where the adaptation is done again on the same episodes with the ratios ρ of the new and the old probabilities of
    their actions (equation 12, "low variance curvature"), clip is the surrogate of PPO for the adapted policy
    (equation 14), and the divergence is that of the policies that played the episodes adapted to.

    Its data is a `Tasks` of worlds. `lift(learner, rule)` trains the same learner by the unbiased meta-gradient, one
    step for each batch; this one has some bias and takes more from each.

    Args:
        learner: `maml_rl(...)`; all that it can learn is learned: the policy, and rates that are arrays.
        rule: how leaves move: `clip(adam(1e-3), 0.5)`.
        batch: worlds in one step.
        epochs: moves in one step.
        limit: ε of the clipped surrogate.
        penalty: weight of the divergence.
        steps: of one adaptation, for the storey above.
        judged: worlds in one `loss`; `batch` if None.

    Differs from the paper in: advantages are weighted by γ^t, as in the return that is meant; the weight of the
    divergence is fixed; the divergence is estimated from the actions taken, by ρ − 1 − log ρ.
    """

    learner: Descend
    rule: Rule
    batch: int = eqx.field(static=True, default=20)
    epochs: int = eqx.field(static=True, default=5)
    limit: Any = eqx.field(converter=constant_unless_array, default=0.3)
    penalty: Any = eqx.field(converter=constant_unless_array, default=5e-4)
    steps: int = eqx.field(static=True, default=1)
    judged: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not isinstance(getattr(self.learner, "objective", None), PolicyReturn):
            raise TypeError(
                f"ProMP: expected a learner that adapts by policy gradients, as `maml_rl(...)` makes one, got "
                f"{type(self.learner).__name__}."
            )
        for name in ("batch", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"ProMP: expected {name} of at least 1, got {getattr(self, name)}.")

    @property
    def height(self) -> int:
        return self.learner.height + 1

    def start(self, *, key: PRNGKeyArray) -> Practice:
        del key
        leaves = [strong(leaf) for leaf in pick(self.learner)]
        return Practice(leaves, self.rule.start(leaves), jnp.zeros((), jnp.int32))

    def step(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> Practice:
        return self.update(state, data, key=key)[0]

    def update(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> tuple[Practice, Metrics]:
        learner = put(self.learner, state.leaves)
        path, last = jax.vmap(lambda key: self._gather(learner, data, key))(fork(key, self.batch))

        def move(moved, _):
            leaves, rule = moved
            gradient, metrics = jax.grad(self._surrogate, has_aux=True)(leaves, path, last)
            rule, leaves = self.rule.step(rule, leaves, gradient)
            return (leaves, rule), metrics

        moved, metrics = jax.lax.scan(move, (state.leaves, state.rule), None, length=self.epochs)
        returns = jnp.mean(last.returned)
        metrics = {"loss": -returns, "return": returns, **jax.tree.map(jnp.mean, metrics)}
        return Practice(*moved, state.count + 1), metrics

    def loss(self, state: Practice, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        return self.result(state).as_judge().loss(data, key=key)

    def result(self, state: Practice) -> Expected:
        """The learner with the leaves that `state` has reached, as its lift returns it."""
        return Expected(put(self.learner, state.leaves), self.batch, judged=self.judged)

    def _gather(self, learner: Descend, data: Tasks, key: PRNGKeyArray) -> tuple[Trajectories, Trajectories]:
        """Trajectories of each inner step `[step, ...]`, and of the adapted policy."""
        key_task, key_start, key_steps, key_last = fork(key, 4)
        task = data.sample(key_task)

        def inner(state, key):
            episodes = learner.result(state).played(task.support, key=key)
            return self._adapted(learner, state, episodes)[0], episodes

        state, path = jax.lax.scan(inner, learner.start(key=key_start), fork(key_steps, learner.steps))
        return jax.lax.stop_gradient((path, learner.result(state).played(task.query, key=key_last)))

    def _adapted(self, learner: Descend, state: Descent, episodes: Trajectories) -> tuple[Descent, Float[Array, ""]]:
        """One inner step on these episodes, and how far the policy before it is from the one that played them."""

        def surrogate(leaves):
            change = put(learner.objective, leaves, learner.learn).log_probability(episodes) - episodes.log_probability
            return -jnp.sum(jnp.exp(change) * episodes.weight) / len(episodes.weight), change

        gradient, change = jax.grad(surrogate, has_aux=True)(state.leaves)
        rule, leaves = learner.rule.step(state.rule, state.leaves, gradient)
        apart = jnp.sum((jnp.exp(change) - 1 - change) * episodes.live) / jnp.sum(episodes.live)
        return dataclasses.replace(state, leaves=leaves, rule=rule), apart

    def _surrogate(
        self, leaves: list[Array], path: Trajectories, last: Trajectories
    ) -> tuple[Float[Array, ""], Metrics]:
        learner = put(self.learner, leaves)

        def one(path, last):
            start = learner.start(key=jax.random.key(0))  # nothing in it depends on luck
            state, apart = jax.lax.scan(lambda state, episodes: self._adapted(learner, state, episodes), start, path)
            change = learner.result(state).log_probability(last) - last.log_probability
            gain = clipped(jnp.exp(change), last.weight, value(self.limit))
            return {"gain": jnp.sum(gain) / jnp.sum(last.live), "kl": jnp.mean(apart)}

        means = jax.tree.map(jnp.mean, jax.vmap(one)(path, last))
        return value(self.penalty) * means["kl"] - means["gain"], {"kl": means["kl"]}
