"""Truncated unrolling."""

import equinox as eqx
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task
from metatower.core.gradient import score


class Truncated(Gradient):
    """Reverse mode through the last `last` steps of the inner run only.

    Memory and time of the backward pass stop growing with the run. Biased towards what pays off within
    `last` steps (Wu et al. 2018, "Understanding short-horizon bias"); exact when `last` covers the run.
    Through a run longer than `last` no gradient reaches the learner's initial leaves at all: use it for
    hyper-parameters, or where a long run forgets its start.
    """

    last: int = eqx.field(static=True)
    remat: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.last < 1:
            raise ValueError(f"Truncated: expected last of at least 1, got {self.last}.")

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        return score(learner, task, key=key, remat=self.remat, last=self.last)
