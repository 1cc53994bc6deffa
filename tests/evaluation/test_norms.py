import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Blobs, curve, embedding, number

from metatower.core import value
from metatower.core.errors import UserError
from metatower.evaluation.norms import compare_norms, measured
from metatower.learners import ImplicitMAML, PrototypicalNetwork, maml
from metatower.nets import Supervised, batch_norm, cross_entropy, norms, with_norm, with_running

pytestmark = pytest.mark.usefixtures("quick_compile")
TASKS = Blobs(number(0.5))


def test_modes_by_hand():
    x = jax.random.normal(jax.random.key(0), (6, 2, 2, 3)) * 2 + 1
    other = 3 * x + 1
    flat = np.asarray(x).reshape(-1, 3)
    mean, deviation = flat.mean(axis=0), np.sqrt(flat.var(axis=0) + 1e-5)
    norm = batch_norm(3, "support")
    _, moments = norm.normalised(x)
    np.testing.assert_allclose(norm.normalised(other, given=moments)[0], (other - mean) / deviation, atol=1e-4)
    running = with_running(norm, [moments])
    np.testing.assert_allclose(running(other), (other - mean) / deviation, atol=1e-4)
    for same in (with_norm(norm, "transductive"), norm):
        y = same(other)
        np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_array_equal(with_norm(norm, "none")(x), x)
    with pytest.raises(ValueError, match="no statistics yet"):
        batch_norm(3, "running")(x)
    with pytest.raises(Exception, match=r"expected a mode of|Type-check error"):
        batch_norm(3, "group")  # ty: ignore


def test_padding_has_no_part_in_the_statistics():
    x = jax.random.normal(jax.random.key(0), (6, 3))
    weight = jnp.array([1.0, 1, 0, 1, 0, 1])
    y, _ = batch_norm(3).normalised(x, weight)
    np.testing.assert_allclose(y[weight > 0], batch_norm(3)(x[weight > 0]), rtol=1e-4, atol=1e-5)


def test_measured_is_the_mean_and_variance_of_all_supports():
    net = embedding()
    learner = PrototypicalNetwork(dataclasses.replace(net, norm=batch_norm(3)))
    (norm,) = norms(measured(learner, TASKS, episodes=40, seed=3))
    assert norm.mode == "running"
    from metatower.core.keys import fork
    from metatower.evaluation.episodes import episode_keys

    x = [TASKS.sample(fork(k, 2)[0]).support.x for k in episode_keys(3, 0, 40)]
    seen = np.tanh(np.asarray(net.linear(jnp.concatenate(x))))
    np.testing.assert_allclose(value(norm.running).mean, seen.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(value(norm.running).variance, seen.var(axis=0), atol=1e-5)


@pytest.mark.parametrize("kind", ["prototypical", "maml", "imaml"])
def test_only_the_transductive_mode_gives_something_away(kind):
    net = embedding()
    objective = Supervised(net, cross_entropy)
    learner = {
        "prototypical": PrototypicalNetwork(net),
        "maml": maml(objective, 0.5, 2),
        "imaml": ImplicitMAML(objective, 0.5, 0.1, 2),
    }[kind]
    table = compare_norms(learner, TASKS, training=TASKS, episodes=20)
    assert [row.mode for row in table.rows] == ["transductive", "support", "running", "none"]
    gifts = {row.mode: row.gift for row in table.rows}
    assert gifts["transductive"].mean > 0.05  # one query by itself is normalised to nothing
    for mode in ("support", "running", "none"):
        np.testing.assert_allclose([gifts[mode].lo, gifts[mode].hi], 0, atol=1e-6)
    assert str(table).count("%") == 12


def test_a_learner_without_norms_is_told_so():
    with pytest.raises(UserError, match="no norms"):
        compare_norms(maml(curve(), 0.1), TASKS)
    with pytest.raises(UserError, match="no norms"):
        measured(maml(curve(), 0.1), TASKS)
