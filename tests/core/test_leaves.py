import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Constant, Positive, value
from metatower.core import names, pick, put


class Tree(eqx.Module):
    a: jax.Array
    fixed: Constant
    counts: jax.Array
    b: list
    name: str = eqx.field(static=True, default="tree")


def tree():
    return Tree(jnp.array(1.0), Constant(jnp.array(2.0)), jnp.array([3, 4]), [Positive(5.0), jnp.array([6.0, 7.0])])


def test_learnable_are_floating_arrays_outside_constants():
    assert names(tree()) == ["a", "b.0.log", "b.1"]
    assert [leaf.shape for leaf in pick(tree())] == [(), (), (2,)]


def test_put_undoes_pick():
    assert eqx.tree_equal(put(tree(), pick(tree())), tree())
    doubled = put(tree(), [2 * leaf for leaf in pick(tree())])
    np.testing.assert_array_equal(doubled.b[1], [12.0, 14.0])
    assert doubled.fixed.content == 2.0
    assert doubled.name == "tree"


def test_put_refuses_the_wrong_number_of_leaves():
    with pytest.raises(ValueError, match="zip"):
        put(tree(), pick(tree())[:-1])


def test_a_selector_takes_nodes_or_a_sequence_of_them_in_tree_order():
    assert names(tree(), lambda t: t.b) == ["b.0.log", "b.1"]
    assert names(tree(), lambda t: (t.b[1], t.a)) == ["a", "b.1"]
    changed = put(tree(), [jnp.array([0.0, 0.0])], lambda t: t.b[1])
    assert changed.a == 1.0
    np.testing.assert_array_equal(changed.b[1], 0.0)


def test_a_selector_that_chooses_nothing_lists_what_there_is():
    for empty in (lambda t: t.counts, lambda t: t.fixed, lambda t: ()):
        with pytest.raises(ValueError, match=r"chose no floating-point array of Tree\. .*: a, b\.0\.log, b\.1"):
            pick(tree(), empty)


def test_value_reads_through_the_wrappers():
    np.testing.assert_allclose(value([Positive(3.0), Constant(4.0), 5.0]), [3.0, 4.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(value(Positive([0.1, 0.2])), [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, [0.1, -0.2], float("nan")])
def test_positive_refuses_what_has_no_logarithm(bad):
    with pytest.raises(ValueError, match="Positive takes numbers above zero"):
        Positive(bad)


def test_positive_learns_by_factors():
    slope = jax.grad(lambda p: value(p))(Positive(3.0))
    np.testing.assert_allclose(slope.log, 3.0, rtol=1e-6)
