"""A manager and a worker that draw, that are smooth, and that have decided."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core import pick
from metatower.nets.controller import PER_BIN, ManagerWorker, Seen, decided

SEEN = Seen(jnp.ones(4), jnp.zeros((2, PER_BIN)), jnp.zeros(3, jnp.int32), jnp.zeros(3))


def policy(**how):
    made = ManagerWorker(4, key=jax.random.key(0), **how)
    return eqx.tree_at(lambda each: each.reflex, made, made.reflex.at[0].set(0.3))  # changes of 0.3


def options(controller):
    """Options and changes under ten keys, with the log-probabilities of what was drawn."""
    found = []
    for key in jax.random.split(jax.random.key(1), 10):
        memory, option, chosen = controller.manage(controller.start(), SEEN, key=key)
        changes, drawn = controller.work(memory, SEEN, option, key=key)
        found.append(((int(option.inner), int(option.routine)), np.asarray(changes), float(chosen), float(drawn)))
    return found


@pytest.mark.parametrize("smooth", [False, True])
def test_it_draws_options_and_unless_smooth_changes(smooth):
    found = options(policy(explores=True, smooth=smooth))
    assert len({option for option, *_ in found}) > 1
    assert all(chosen < 0 for _, _, chosen, _ in found)
    spread = np.std([changes for _, changes, *_ in found], axis=0)
    if smooth:
        np.testing.assert_allclose([changes for _, changes, *_ in found], 0.3, rtol=1e-6)
        assert all(drawn == 0 for *_, drawn in found)
    else:
        assert np.all(spread > 0.01)
        assert all(drawn != 0 for *_, drawn in found)


def test_once_decided_it_takes_the_likeliest_with_the_same_leaves():
    drawing = policy(explores=True, smooth=True)
    found = options(decided(drawing))
    assert {option for option, *_ in found} == {(int(drawing.default), 0)}
    assert all(chosen == drawn == 0 for _, _, chosen, drawn in found)
    for a, b in zip(pick(drawing), pick(decided(drawing)), strict=True):
        assert a is b
    assert drawing.explores  # untouched
