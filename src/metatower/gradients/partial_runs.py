"""What PES and NRES share: evolution strategies on inner runs that are played a few steps per estimate."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from metatower.core import At, Data, Gradient, Learner, Run, Scored, State, Task
from metatower.core.gradient import score
from metatower.core.keys import fork


class Workers(eqx.Module):
    """One pair of unfinished runs per worker: the same task and keys, perturbed to opposite sides."""

    states: PyTree
    """Of both runs, `[worker, 2, ...]`; None where an estimate plays runs from start to end."""
    life: UInt32[Array, "*worker word"]
    """The numbers of the key that the present pair of runs was begun with."""
    clock: Int[Array, "*worker"]
    """Windows that the pair has played; below zero before its first turn."""
    noise: list[Float[Array, "..."]]
    """What the pair remembers of its perturbations, `[worker, ...]` per learned leaf, in units of σ."""


class PartialRuns(Gradient):
    """Antithetic evolution strategies, online: an estimate plays the next `unroll` steps of runs that go on.

    A run of T steps is T / unroll windows. With losses L_t after each step and perturbations ε_j of windows j, all
    these estimators are

        g = mean over workers of (L⁺ − L⁻) / 2σ · (what the pair remembers of its ε),

    L the mean of L_t over the window, both sides on the same task and keys. They differ in `remember`. A run begins
    anew after its last window, on a new task. As the leaves move while a run goes on, its early windows were played by
    older leaves; with leaves that stand still the mean over the windows of a run has no bias.

    Args:
        pairs: of perturbed runs for each task of the objective's batch; all together are the workers.
        sigma: width of the perturbations.
        unroll: steps per estimate; must divide the steps of a run.
        every_step: what is learned is the mean of the query losses after *each* step, as in the papers. If False, the
            query loss after the last, as with all other gradients: only windows that end a run tell something then.
        staggered: workers begin one after another, so that all windows are played at any time (the "step-unlocked"
            workers of NRES). If False all play the same window.

    The value of an estimate is that of the perturbed runs as far as they are, at the price of no run more. Where there
    is no run to be played in parts (an objective at storey 0), and in `estimate`, these are plain evolution strategies.
    """

    pairs: int = eqx.field(static=True, default=16)
    sigma: float = eqx.field(static=True, default=0.01)
    unroll: int = eqx.field(static=True, default=1)
    every_step: bool = eqx.field(static=True, default=True)
    staggered: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.pairs < 1 or self.sigma <= 0 or self.unroll < 1:
            raise ValueError(
                f"{type(self).__name__}: expected pairs >= 1, sigma > 0 and unroll >= 1, got {self.pairs}, "
                f"{self.sigma} and {self.unroll}."
            )

    @abstractmethod
    def remember(
        self, noise: list[Array], fresh: list[Array], begins: Bool[Array, ""]
    ) -> tuple[list[Array], list[Array]]:
        """The perturbation of this window, and what the pair remembers after it (also what its slope is credited to).

        Args:
            noise: what it remembered before.
            fresh: normal numbers never used before.
            begins: whether this window is the first of a run.
        """

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return score(learner, task, key=key)

    def evaluations(self, size: int) -> int:
        return 2 * self.pairs

    def played(self, steps: int) -> int:
        return min(self.unroll, steps)

    def loss_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        return fork(key, 2)[1]

    def begin(self, at: At, leaves: list[Array], *, key: PRNGKeyArray) -> Workers | None:
        runs = list(at(leaves).runs(None, key=key))
        if not runs or runs[0].learner.steps == 0:
            return None
        workers, windows = len(runs) * self.pairs, self._windows(runs[0].learner)

        def each(x, *shape):
            return jnp.broadcast_to(x, (workers, *shape, *jnp.shape(x)))

        states = None if windows == 1 else jax.tree.map(lambda x: each(x, 2), runs[0].start())
        late = jnp.arange(workers, dtype=jnp.int32) * windows // workers if self.staggered else jnp.zeros(workers, int)
        noise = [each(jnp.zeros_like(leaf)) for leaf in leaves]
        return Workers(states, each(jnp.zeros_like(jax.random.key_data(key))), -late.astype(jnp.int32), noise)

    def cross(self, at: At, data: Data, leaves: list[Array], state: Any, *, key: PRNGKeyArray):
        if state is None:
            return super().cross(at, data, leaves, state, key=key)
        key_life, key_noise = fork(key, 2)
        workers = len(state.clock)
        windows = self._windows(next(iter(at(leaves).runs(data, key=key))).learner)

        def one(each):
            return self._window(at, data, leaves, windows, *each)

        keys = fork(key_life, workers), fork(key_noise, workers)
        tasks = workers // self.pairs
        after, gradients, scored, counts = jax.lax.map(one, (state, *keys), batch_size=None if tasks == 1 else tasks)
        total = jnp.sum(counts)  # never zero: the first worker is never late

        def mean(x):
            return jnp.sum(jnp.where(counts.reshape(-1, *[1] * (x.ndim - 1)), x, 0), axis=0) / total

        return jax.tree.map(mean, scored), [mean(g) for g in gradients], after

    def estimate(self, loss, leaves, state: State, *, key: PRNGKeyArray):
        key_noise, key_loss = fork(key, 2)

        def pair(key):
            noise = _normal(key, leaves)
            above, below = (loss(_moved(leaves, noise, s * self.sigma), key_loss)[0] for s in (1, -1))
            return [(above - below) / (2 * self.sigma) * e for e in noise]

        gradients = jax.lax.map(pair, fork(key_noise, self.pairs))
        return loss(leaves, key_loss), [jnp.mean(g, axis=0) for g in gradients], state

    def _windows(self, learner: Learner) -> int:
        unroll = self.played(learner.steps)
        if learner.steps % unroll:
            raise ValueError(
                f"{type(self).__name__}: a run of {learner.steps} steps is not a whole number of windows of "
                f"{self.unroll}. Take an `unroll` that divides it."
            )
        return learner.steps // unroll

    def _window(self, at: At, data: Data, leaves: list[Array], windows: int, worker: Workers, key_life, key_noise):
        """The next window of one worker: the worker after it, its gradient, its value, and whether it counts."""
        begins = worker.clock <= 0
        life = jnp.where(begins, jax.random.key_data(key_life), worker.life)
        key = jax.random.wrap_key_data(life, impl=jax.random.key_impl(key_life))
        noise, memory = self.remember(worker.noise, _normal(key_noise, leaves), begins)

        def side(sign, state):
            run = next(iter(at(_moved(leaves, noise, sign * self.sigma)).runs(data, key=key)))
            return self._play(run, state, windows, jnp.maximum(worker.clock, 0))

        states, losses, scored = jax.vmap(side)(jnp.array([1.0, -1.0], leaves[0].dtype), worker.states)
        difference = (losses[0] - losses[1]) / (2 * self.sigma)
        clock = jnp.where(worker.clock + 1 == windows, 0, worker.clock + 1)
        scored = jax.tree.map(lambda x: jnp.mean(x, axis=0), scored)
        after = Workers(states, life, clock, memory)
        return after, [difference * m for m in memory], scored, worker.clock >= 0

    def _play(self, run: Run, state: State, windows: int, clock: Int[Array, ""]):
        """One side of a window: the state to be kept, what is learned, and what is shown."""
        unroll, task = self.played(run.learner.steps), run.task()
        if windows == 1:
            state = run.start()
        else:
            state = jax.tree.map(lambda new, old: jnp.where(clock == 0, new, old), run.start(), state)

        def step(state, index):
            state = run.step(state, task, index)
            return state, run.loss(state, task)[0] if self.every_step else None

        indices = clock * unroll + jnp.arange(unroll, dtype=jnp.int32)
        if unroll == 1:
            state, losses = step(state, indices[0])
        else:
            state, losses = jax.lax.scan(step, state, indices)
        loss, metrics = run.loss(state, task)
        # such that the mean over the windows of a run is the loss that is learned
        learned = jnp.where(clock == windows - 1, windows * loss, 0) if losses is None else jnp.mean(losses)
        return None if windows == 1 else state, learned, (loss, metrics)


def _normal(key: PRNGKeyArray, leaves: list[Array]) -> list[Array]:
    keys = fork(key, len(leaves))
    return [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]


def _moved(leaves: list[Array], noise: list[Array], by: Float[Array, ""] | float) -> list[Array]:
    return [leaf + by * e for leaf, e in zip(leaves, noise, strict=True)]
