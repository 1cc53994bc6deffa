"""What a learner of somebody's own has to return is said where it does not."""

import jax
import pytest
from tests.toys import Memory, data, number

from metatower import lift, sgd


class Bare(Memory):
    """Gives its loss, and nothing beside it."""

    def loss(self, state, data, *, key):
        return super().loss(state, data, key=key)[0]


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
def test_a_loss_without_metrics_is_one_clear_error(jit):
    tower = lift(Bare(number(0.3), number(2.0)), sgd(0.1), batch=2)
    step = jit(lambda state: tower.step(state, data(1), key=jax.random.key(1)))
    with pytest.raises(TypeError, match=r"Bare\.loss: expected a pair of the loss.*Return `loss, \{\}`"):
        step(tower.start(key=jax.random.key(0)))
