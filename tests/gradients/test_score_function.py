"""The score function against a bandit whose every course can be enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, curve, key, number

from metatower import Expected, Learner, Task, Tasks, lift, sgd
from metatower.core import Unrolled, pick, put
from metatower.gradients import ScoreFunction
from metatower.learners import maml

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")
ARMS, PULLS = 3, 3


class Puller(Learner):
    """Pulls arms by chance, likelier those that paid, and is judged by how its estimate misses what it earned.

    Three leaves, all with a gradient by chance; the last also has one that goes through the loss.
    """

    preference: jax.Array
    trust: jax.Array
    guess: jax.Array
    steps = PULLS

    def start(self, *, key):
        return jnp.zeros(ARMS), jnp.zeros(())

    def odds(self, earned):
        return jax.nn.log_softmax(self.preference + self.trust * earned)

    def pull(self, state, pays, arm):
        earned, log = state
        return earned + pays * jax.nn.one_hot(arm, ARMS), log + self.odds(earned)[arm]

    def step(self, state, data, *, key):
        return self.pull(state, data, jax.random.categorical(key, self.odds(state[0])))

    def loss(self, state, data, *, key):
        return (self.guess - jnp.sum(state[0])) ** 2, {"earned": jnp.sum(state[0])}

    def log_probability(self, state):
        return state[1]


class Machine(Tasks):
    def sample(self, key):
        return Task(PAYS, PAYS)


PAYS = np.array([0.2, 1.0, -0.5])


def puller(kind=Puller):
    return kind(jnp.array([0.1, -0.3, 0.2]), number(0.7), number(1.2))


def leaves_of():
    return pick(puller())


def expected(leaves):
    """The mean loss over all courses that a run may take, each with its probability."""
    learner, total = put(puller(), leaves), 0.0
    for course in itertools.product(range(ARMS), repeat=PULLS):
        state = learner.start(key=None)
        for arm in course:
            state = learner.pull(state, PAYS, arm)
        total += jnp.exp(state[1]) * learner.loss(state, None, key=None)[0]
    return total


def flat(leaves):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def sampled(runs, draws, differentiate, seed=0):
    """`[draws, ...]`: derivatives of the estimator's score."""

    def score(leaves, key):
        return ScoreFunction(runs).score(put(puller(), leaves), Machine().sample(key), key=key)[0]

    keys = jax.random.split(jax.random.key(seed), draws)
    return jax.jit(jax.vmap(lambda key: differentiate(lambda leaves: score(leaves, key))))(keys)


def test_the_gradient_is_that_of_the_enumeration():
    exact = flat(jax.grad(expected)(leaves_of()))
    found = sampled(4, 6000, lambda score: flat(jax.grad(score)(leaves_of())))
    error = found.std(axis=0) / len(found) ** 0.5
    assert (error < 0.1 * jnp.abs(exact).max()).all(), "too noisy to tell anything"
    assert (jnp.abs(found.mean(axis=0) - exact) < 3.5 * error).all()
    without = flat(sampled(4, 2000, lambda score: score(leaves_of())).mean()[None])
    np.testing.assert_allclose(without, expected(leaves_of()), rtol=0.05)


def test_without_the_probability_it_is_wrong():
    class Silent(Puller):
        def log_probability(self, state):
            return jnp.zeros(())

    silent = puller(Silent)

    def gradient(key):
        def score(leaves):
            return ScoreFunction(2).score(put(silent, leaves), Machine().sample(key), key=key)[0]

        return flat(jax.grad(score)(leaves_of()))

    found = jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(1), 50))
    np.testing.assert_array_equal(found[:, :4], 0)  # nothing but the path through the loss is left
    assert jnp.abs(flat(jax.grad(expected)(leaves_of()))[:4]).max() > 0.1


def test_its_derivative_is_that_of_the_enumeration_too():
    """As a storey above needs it: the second derivative along one direction."""
    direction = [jnp.array([1.0, -1.0, 0.5]), number(0.3), number(-0.4)]

    def curved(score):
        return flat(jax.jvp(jax.grad(score), (leaves_of(),), (direction,))[1])

    exact, found = curved(expected), sampled(4, 12000, curved)
    error = found.std(axis=0) / len(found) ** 0.5
    assert (error < 0.1 * jnp.abs(exact).max()).all(), "too noisy to tell anything"
    assert (jnp.abs(found.mean(axis=0) - exact) < 4 * error).all()


def test_the_other_runs_are_a_good_baseline():
    """Against plain REINFORCE of as many runs, whose mean is the same."""

    def plain(key):
        def one(leaves, key):
            learner = put(puller(), leaves)
            state = learner.adapt(PAYS, key=key)
            loss = learner.loss(state, PAYS, key=key)[0]
            return loss + jax.lax.stop_gradient(loss) * learner.log_probability(state)

        return jnp.mean(jax.vmap(lambda k: flat(jax.grad(one)(leaves_of(), k)))(jax.random.split(key, 8)), axis=0)

    without = jax.jit(jax.vmap(plain))(jax.random.split(jax.random.key(2), 4000))
    found = sampled(8, 4000, lambda score: flat(jax.grad(score)(leaves_of())))
    np.testing.assert_allclose(without.mean(axis=0), flat(jax.grad(expected)(leaves_of())), atol=0.1)
    assert found.var(axis=0)[:3].sum() < 0.7 * without.var(axis=0)[:3].sum()


def test_a_storey_above_learns_which_arm_pays():
    class Greedy(Puller):
        def loss(self, state, data, *, key):
            return -jnp.sum(state[0]), {}

    trainer = lift(puller(Greedy), sgd(0.2), batch=4, steps=60, gradient=ScoreFunction(4))
    learner = trainer.result(jax.jit(lambda: trainer.adapt(Machine(), key=key(0)))()).learner
    assert jnp.argmax(learner.odds(jnp.zeros(ARMS))) == 1
    assert Unrolled().score(learner, Machine().sample(key(0)), key=key(1))[0] < -2.4  # 3 at best


def test_where_nothing_is_left_to_chance_it_is_the_exact_gradient():
    objective = Expected(maml(Bowl(number(0.9)), number(0.4), steps=2))
    leaves, tasks = pick(objective), Bowls(number(0.7), number(1.3))
    at = lambda leaves: put(objective, leaves)  # noqa: E731
    exact, found = (g.cross(at, tasks, leaves, None, key=key(0)) for g in (Unrolled(), ScoreFunction(3)))
    np.testing.assert_allclose(found[1], exact[1], rtol=1e-12)
    np.testing.assert_allclose(found[0][0], exact[0][0], rtol=1e-12)
    assert maml(curve(), 0.1).log_probability(None) == 0


def test_one_run_has_no_others():
    with pytest.raises(ValueError, match="expected runs >= 2"):
        ScoreFunction(runs=1)
