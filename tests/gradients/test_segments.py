"""Runs in rematerialised segments: the same bits forward, the same gradient, memory that grows as the square root."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Slopes, curve, key, number

from metatower import Descend, Expected, Task, sgd
from metatower.core import Unrolled, pick, put, run
from metatower.core.contract import near_root
from metatower.gradients import MixedMode
from metatower.nets import MLP, Examples, Supervised, squared_error


@pytest.mark.parametrize("steps", [12, 16, 31, 97])
def test_the_forward_pass_keeps_its_bits(steps):
    """As long as every loop goes round at least twice: XLA has other instructions for a loop that it unrolled."""
    learner = Descend(curve(), sgd(number(0.3)), steps=steps)
    support = Slopes(number(1.0)).sample(key(0)).support
    adapt = eqx.filter_jit(lambda how: run(learner, support, key=key(1), **how))
    for how in ({"segment": "sqrt"}, {"segment": "sqrt", "remat": True}):
        for a, b in zip(adapt({}).leaves, adapt(how).leaves, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("x64", "quick_compile")
@pytest.mark.parametrize("steps", [1, 7, 12])
@pytest.mark.parametrize("segment", [3, "sqrt"])
@pytest.mark.parametrize("remat", [False, True])
def test_the_gradient_is_that_of_the_plain_run(steps, segment, remat):
    objective = Expected(Descend(curve(), sgd(number(0.3)), steps=steps), batch=2)

    def gradient(how):
        def loss(leaves, key):
            return put(objective, leaves).crossed_by(how).loss(Slopes(number(1.0)), key=key)

        return jax.jit(lambda: how.estimate(loss, pick(objective), None, key=key(1))[1])()

    for a, b in zip(gradient(Unrolled(remat, segment)), gradient(Unrolled()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_segments_divide_the_run_where_a_divisor_is_near():
    assert [near_root(n) for n in (1, 4, 12, 16, 30, 64, 100, 256)] == [1, 2, 3, 4, 5, 8, 10, 16]
    assert 97 % near_root(97) > 1  # a prime
    assert all(near_root(n) <= n for n in range(1, 300))


@pytest.mark.parametrize("gradient", [Unrolled(remat=True, segment="sqrt"), MixedMode(segment="sqrt")])
def test_memory_grows_as_the_root_of_the_steps(gradient):
    net = Supervised(MLP((1, 64, 64, 1), key=jax.random.key(0)), squared_error)
    examples = Examples(jnp.ones((16, 1)), jnp.zeros((16, 1)))

    def working_memory(steps):
        def loss(rate):
            inner = MixedMode() if isinstance(gradient, MixedMode) else Unrolled()
            learner = Descend(net, sgd(rate), steps=steps, gradient=inner)
            return gradient.score(learner, Task(examples, examples), key=key(0))[0]

        return jax.jit(jax.grad(loss)).lower(0.1).compile().memory_analysis().temp_size_in_bytes

    assert working_memory(256) < 6 * working_memory(16)  # in proportion it would be 16


@pytest.mark.parametrize("bad", [0, -3, "root"])
def test_a_segment_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="expected segment"):
        Unrolled(segment=bad)
