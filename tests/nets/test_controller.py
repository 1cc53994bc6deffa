"""A manager and a worker that draw, that are smooth, and that have decided."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core import pick
from metatower.nets.controller import EXPLORE, FOCUS, GAIN, PER_BIN, ManagerWorker, Seen, at_rest, decided, set_out

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


def test_at_rest_it_is_what_it_set_out_as_and_training_does_not_move_that():
    """A rule of thumb: bins are preferred by their gain, whatever the heads say later."""
    given = jnp.zeros(PER_BIN).at[GAIN].set(0.5)
    thumb = set_out(ManagerWorker(4, key=jax.random.key(0), explores=True), 2, (0.0, -0.2, 0.0), FOCUS, given)
    seen = eqx.tree_at(lambda each: each.bins, SEEN, jnp.zeros((2, PER_BIN)).at[1, GAIN].set(2.0))

    def chosen(controller):
        return controller.manage(controller.start(), seen, key=jax.random.key(1))[1]

    option = chosen(decided(thumb))
    assert (int(option.inner), int(option.routine)) == (2, FOCUS)
    np.testing.assert_allclose(option.logits, [0.0, thumb.unit * 0.5 * 2.0])
    slopes = eqx.filter_grad(lambda controller: chosen(controller).logits @ jnp.array([0.0, 1.0]))(thumb)
    assert not jnp.any(slopes.given)
    assert slopes.plain[GAIN] == 2.0 * thumb.unit
    moved = eqx.tree_at(lambda each: each.plain, thumb, jnp.ones(PER_BIN))
    np.testing.assert_array_equal(chosen(at_rest(moved)).logits, chosen(thumb).logits)
    assert int(chosen(decided(set_out(thumb, 0))).routine) == EXPLORE

    def moves(controller):
        return decided(controller).work(controller.start(), seen, option, key=jax.random.key(1))[0]

    np.testing.assert_allclose(moves(thumb), [0.0, -0.2, 0.0], rtol=1e-6)  # the worker's heads are zero
    assert not jnp.any(eqx.filter_grad(lambda controller: moves(controller).sum())(thumb).drift)
    pulled = eqx.tree_at(lambda each: each.reflex, thumb, jnp.ones_like(thumb.reflex))
    np.testing.assert_array_equal(moves(at_rest(pulled)), moves(thumb))
