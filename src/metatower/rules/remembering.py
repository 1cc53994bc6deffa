"""A rule whose memory at the start of a run is learned."""

from jaxtyping import Array, PyTree

from metatower.core import Rule, State, pick
from metatower.core.leaves import Selector


class Remembering(Rule):
    """Moves as `rule` does, but sets out from a memory that is a leaf: the storey above learns it.

    Under `gradient=Reptile()` it is moved towards what the runs on tasks end with, as the weights are. So Adam knows
    the sizes of gradients before its first step on a task; in the code of Nichol, Achiam & Schulman 2018 it does so
    because its slots are carried from task to task.

    Other gradients may move a memory to where no run could have left it, such as negative squares. Made with
    `remembering`.
    """

    rule: Rule
    memory: State

    def start(self, leaves: list[Array]) -> State:
        return self.memory

    def step(self, state: State, leaves: list[Array], gradient: list[Array]) -> tuple[State, list[Array]]:
        return self.rule.step(state, leaves, gradient)


def remembering(objective: PyTree, rule: Rule, *, learn: Selector | None = None) -> Remembering:
    """`rule` with a memory that the storey above learns; it starts as that of `rule` does.

    Args:
        objective: whose leaves the rule moves.
        learn: the learner's selector, if it has one.

    >>> import jax
    >>> from metatower import Descend, adam, lift, sgd
    >>> from metatower.gradients import Reptile
    >>> from metatower.nets import Linear, Supervised, squared_error
    >>> objective = Supervised(Linear(1, 1, key=jax.random.key(0)), squared_error)
    >>> learner = Descend(objective, remembering(objective, adam(0.01, b1=0.0)), steps=5)
    >>> lift(learner, sgd(0.1), gradient=Reptile()).height
    1
    """
    return Remembering(rule, rule.start(pick(objective, learn)))
