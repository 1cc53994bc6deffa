import jax.numpy as jnp
import numpy as np
import pytest

from metatower.nets import Examples, cross_entropy


def test_outputs_beyond_the_labels_of_a_task_are_no_answers():
    logits = jnp.array([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0]])
    data = Examples(jnp.zeros((2, 1)), jnp.array([0, 1]), ways=jnp.ones(2, bool))
    loss, metrics = cross_entropy(logits, data)
    np.testing.assert_allclose(loss, np.log(1 + np.exp(-1.0)), rtol=1e-6)
    assert metrics["accuracy"] == 1.0


def test_fewer_outputs_than_labels_are_refused():
    data = Examples(jnp.zeros((2, 1)), jnp.array([0, 1]), ways=jnp.ones(5, bool))
    with pytest.raises(ValueError, match="up to 5 labels and the network 3 outputs"):
        cross_entropy(jnp.zeros((2, 3)), data)
