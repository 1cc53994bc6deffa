"""The exact gradient: reverse mode through the inner run. The other estimators are in `metatower.gradients`."""

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from metatower.core.contract import At, Data, Gradient, Learner, Scored, State, Task, run
from metatower.core.keys import fork


def score(learner: Learner, task: Task, *, key: PRNGKeyArray, **how) -> Scored:
    """Adapt to the support, be judged on the query; `how` is passed to `run`.

    Raises:
        TypeError: a `loss` of the learner that gives no pair of a loss and metrics.
    """
    key_adapt, key_query = fork(key, 2)
    scored = learner.loss(run(learner, task.support, key=key_adapt, **how), task.query, key=key_query)
    if not (isinstance(scored, tuple) and len(scored) == 2 and isinstance(scored[1], dict)):
        what = f"a tuple of {len(scored)}" if isinstance(scored, tuple) else f"one {type(scored).__name__}"
        raise TypeError(
            f"{type(learner).__name__}.loss: expected a pair of the loss, a scalar, and a dict of metrics, got {what}. "
            "Return `loss, {}` where there is nothing else to tell."
        )
    return scored


def check_scores(of: Gradient, owner: str) -> None:
    """Raises TypeError if `of` has an estimator of its own, which a gradient that wraps its `score` would pass over."""
    if type(of).estimate is not Gradient.estimate or type(of).cross is not Gradient.cross:
        raise TypeError(
            f"{owner} wraps how a run is scored, and {type(of).__name__} estimates the gradient of many runs: it would "
            "be passed over. Give one of Unrolled, Truncated, FirstOrder, Implicit or ScoreFunction."
        )


class Unrolled(Gradient):
    """Reverse mode through every step of the inner run: exact.

    Memory grows with what the inner steps compute. There are two remedies, and they combine:

    Args:
        remat: keep one state per step and recompute what happened inside it, at the price of one more forward pass.
            None switches it on where the inner learner is itself a meta-learner, which is where it pays.
        segment: keep one state per segment of so many steps and recompute the segment, for one more forward pass;
            "sqrt" for about √K segments of a run of K steps, with which memory grows as √K (Griewank 1992,
            "Achieving logarithmic growth ...", with one level of its recursion).
    """

    remat: bool | None = eqx.field(static=True, default=None)
    segment: int | str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not (self.segment in (None, "sqrt") or (isinstance(self.segment, int) and self.segment >= 1)):
            raise ValueError(f'{type(self).__name__}: expected segment >= 1, "sqrt" or None, got {self.segment!r}.')

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        remat = learner.height > 0 if self.remat is None else self.remat
        return score(learner, task, key=key, remat=remat, segment=self.segment)


class Detached(Gradient):
    """Another estimator, with the derivative of its gradient taken as zero (see `FirstOrder`)."""

    of: Gradient

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return self.of.score(learner, task, key=key)

    def estimate(self, loss, leaves, state: State, *, key: PRNGKeyArray):
        scored, gradient, state = self.of.estimate(loss, leaves, state, key=key)
        return scored, jax.lax.stop_gradient(gradient), state

    def start(self, leaves: list[Array]) -> State:
        return self.of.start(leaves)

    def begin(self, at: At, leaves: list[Array], *, key: PRNGKeyArray) -> State:
        return self.of.begin(at, leaves, key=key)

    def cross(self, at: At, data: Data, leaves: list[Array], state: State, *, key: PRNGKeyArray):
        scored, gradient, state = self.of.cross(at, data, leaves, state, key=key)
        return scored, jax.lax.stop_gradient(gradient), state

    def evaluations(self, size: int) -> int:
        return self.of.evaluations(size)

    def played(self, steps: int) -> int:
        return self.of.played(steps)

    def loss_key(self, key: PRNGKeyArray) -> PRNGKeyArray:
        return self.of.loss_key(key)
