"""The comparison over kinds of pictures: tasks of features are the tasks of pictures, and the table tells the truth."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import cross_domain
from benchmarks.cross_domain import MINE, InSpan, in_features, on_features, page, rows

from metatower.core.errors import UserError
from metatower.evaluation.episodes import evaluate
from metatower.learners import LogisticRegression
from metatower.learners.nearest import flat
from metatower.nets import Examples
from metatower.nets.norm import with_norm
from metatower.recipes.learners import find_learner
from metatower.tasks.episodes import Episodes

SHIPPED = "prototypical-omniglot"


def pool(rotations: bool) -> Episodes:
    """Noisy pictures of six classes, of which some have fewer."""
    random = np.random.default_rng(0)
    images = random.integers(0, 120, (6, 1, 28, 28)) + random.integers(0, 136, (6, 7, 28, 28))
    return Episodes(images.astype(np.uint8), np.array([7, 6, 7, 5, 7, 7], np.int32), 5, 2, 3, rotations)


@pytest.mark.parametrize("rotations", [False, True])
def test_features_make_the_same_tasks_as_the_pictures(rotations):
    learner, tasks = find_learner(SHIPPED).learner, pool(rotations)
    on_pictures = evaluate(learner, tasks, episodes=6, seed=0)
    mine = on_features(learner)[MINE]
    again = evaluate(mine, in_features(learner.net, tasks), episodes=6, seed=0)
    np.testing.assert_allclose(again["loss"], on_pictures["loss"], rtol=1e-3)
    other = evaluate(mine, in_features(learner.net, tasks), episodes=6, seed=1)
    assert not np.allclose(other["loss"], on_pictures["loss"], rtol=1e-3)


def test_norms_that_see_pictures_side_by_side_are_refused():
    with pytest.raises(UserError, match="running"):
        in_features(with_norm(find_learner(SHIPPED).learner.net, "transductive"), pool(False))


def test_logistic_regression_is_the_same_in_the_span_of_the_support_set():
    x = jax.random.uniform(jax.random.key(0), (10, 12, 12))
    support = Examples(x, jnp.repeat(jnp.arange(5), 2), ways=jnp.ones(5, bool))
    query = Examples(jax.random.uniform(jax.random.key(1), (15, 12, 12)), jnp.repeat(jnp.arange(5), 3))
    whole, spanned = LogisticRegression(flat), InSpan(flat, LogisticRegression(flat, normalise=False))
    answers = [
        eqx.filter_jit(each.predict)(each.adapt(support, key=jax.random.key(2)), query) for each in (whole, spanned)
    ]
    assert np.ptp(answers[0]) > 0.1
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-2, atol=1e-3)


def test_the_table_names_the_better_plain_learner_and_says_where_there_is_no_gain():
    random = np.random.default_rng(0)
    mine = random.normal(80, 5, 200)
    found = {
        MINE: mine,
        "logistic regression on its features": mine + random.normal(0, 1, 200) - 0.01,
        "nearest neighbour on its features": mine - 9,
        "logistic regression on pixels": mine - 20,
        "nearest neighbour on pixels": mine - 10 + random.normal(0, 1, 200),
    }
    made = rows("here", "there", 1, found)
    assert made[0]["over_pixels"]["against"] == "nearest neighbour on pixels"
    assert made[0]["over_features"]["against"] == "logistic regression on its features"
    assert made[0]["over_pixels"]["difference"] == pytest.approx(10, abs=0.3)
    text = page({"command": "x", "seed": 0, "names": list(found), "rows": made}).splitlines()[-1]
    assert text.count("no gain here") == 1
    assert text.rstrip(" |").endswith("no gain here")


def test_every_source_is_a_learner_that_comes_with_the_package():
    for name in cross_domain.SOURCES.values():
        assert dataclasses.is_dataclass(find_learner(name).learner)
