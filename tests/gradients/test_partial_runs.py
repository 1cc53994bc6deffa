"""Runs played in parts: PES and NRES against exact gradients and variances written down by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import Bowl, Bowls, Slopes, curve, data, key, number, up

from metatower import Descend, Expected, Learner, Task, Tasks, lift, sgd
from metatower.core import Unrolled, describe, pick, put
from metatower.gradients import NRES, PES, Evolution, Truncated
from metatower.gradients.partial_runs import PartialRuns
from metatower.learners import maml

pytestmark = pytest.mark.usefixtures("x64", "quick_compile")
WINDOWS, UNROLL = 12, 10


class Influence(Learner):
    """s ← A s + θ (1, ..., 1, −1, ..., −1), judged by ½ (s₁ − 1)² (Tallec & Ollivier 2017; PES, section 5.1).

    At first a larger θ raises s₁, by the positive components near it; in the long run the negative ones, whose
    influence has a long way to go, outweigh them: ds₁/dθ = −6.
    """

    theta: jax.Array
    steps = WINDOWS * UNROLL
    n, positive = 23, 10

    def start(self, *, key):
        return jnp.ones(self.n) + 0 * self.theta

    def step(self, state, data, *, key):
        sign = jnp.where(jnp.arange(self.n) < self.positive, 1.0, -1.0)
        return 0.5 * state + 0.5 * jnp.append(state[1:], 0.0) + self.theta * sign

    def loss(self, state, data, *, key):
        return 0.5 * (state[0] - 1) ** 2, {}


class Nothing(Tasks):
    def sample(self, key):
        return Task(jnp.zeros(()), jnp.zeros(()))


class Forgetful(PartialRuns):
    """Truncated evolution strategies: credits a window to its own perturbation alone."""

    def remember(self, noise, fresh, begins):
        return fresh, fresh


def at_of(learner, batch=1):
    objective = Expected(learner, batch)
    return lambda leaves: put(objective, leaves), pick(objective)


def over_a_run(gradient, learner, tasks, repeats, windows, seed=0):
    """`[repeats, windows, numbers]`: gradients of successive windows, at leaves that stand still."""
    at, leaves = at_of(learner)

    def one(key):
        def window(state, key):
            _, slope, state = gradient.cross(at, tasks, leaves, state, key=key)
            return state, jnp.concatenate([jnp.ravel(g) for g in slope])

        return jax.lax.scan(window, gradient.begin(at, leaves, key=key), jax.random.split(key, windows))[1]

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), repeats)))


def judged(gradient, theta, every_step):
    """The exact gradient on the influence task: of the mean of all losses, or of the last, by reverse mode."""

    def loss(theta):
        learner = Influence(theta)

        def step(s, _):
            s = learner.step(s, None, key=None)
            return s, learner.loss(s, None, key=None)[0]

        losses = jax.lax.scan(step, learner.start(key=None), length=learner.steps)[1]
        return jnp.mean(losses) if every_step else losses[-1]

    return jax.grad(loss)(theta)


@pytest.mark.parametrize("kind", [PES, NRES, Forgetful])
@pytest.mark.parametrize("every_step", [True, False])
def test_on_the_influence_task_memory_is_what_makes_the_sign_right(kind, every_step):
    """The loss is a quadratic of θ, whose gradient no smoothing changes."""
    exact = judged(kind, number(0.5), every_step)
    gradient = kind(pairs=1, sigma=0.1, unroll=UNROLL, every_step=every_step, staggered=False)
    means = over_a_run(gradient, Influence(number(0.5)), Nothing(), 16000, WINDOWS)[..., 0].mean(axis=1)
    error = means.std() / len(means) ** 0.5
    assert error < 0.1 * abs(exact), "too noisy to tell anything"
    if kind is Forgetful:
        assert np.sign(means.mean()) == -np.sign(exact)
    else:
        assert abs(means.mean() - exact) < 3.5 * error


def test_truncation_is_wrong_there_and_its_training_goes_astray():
    theta, loss = number(0.5), lambda learner: Unrolled().score(learner, Task(number(0), number(0)), key=key(0))[0]

    def trained(gradient, rate=5e-4, steps=300):
        trainer = lift(Influence(theta), sgd(rate), gradient=gradient, steps=steps)
        return trainer.result(jax.jit(lambda: trainer.adapt(Nothing(), key=key(1)))()).learner

    at, leaves = at_of(Influence(theta))
    exact, truncated = (
        gradient.cross(at, Nothing(), leaves, None, key=key(0))[1][0] for gradient in (Unrolled(), Truncated(UNROLL))
    )
    assert np.sign(exact) == -np.sign(truncated)
    assert loss(trained(Truncated(UNROLL))) > loss(Influence(theta))
    for gradient in (PES(64, 0.1, UNROLL), NRES(64, 0.1, UNROLL), PES(64, 0.1, UNROLL, every_step=False)):
        assert loss(trained(gradient)) < 0.05 * loss(Influence(theta))


class Forgets(Learner):
    """The state is the leaf of now, and the loss its sum: early windows leave no trace."""

    w: jax.Array
    steps = 6

    def start(self, *, key):
        return self.w

    def step(self, state, data, *, key):
        return self.w

    def loss(self, state, data, *, key):
        return jnp.sum(state), {}


class Remembers(Forgets):
    """The state is the sum of the leaf so far: every window leaves the same trace."""

    def start(self, *, key):
        return 0 * self.w

    def step(self, state, data, *, key):
        return state + self.w


@pytest.mark.parametrize("learner", [Forgets, Remembers])
def test_variance_by_hand_and_lower_with_reused_noise(learner):
    """With ε ~ N(0, I) in d dimensions and c = (1, ..., 1): the trace of the covariance in window j is

    d² + d with one ε: Cov(ε (c·ε)); where all is forgotten d (d j + 1) with PES, Cov((ε_1 + ... + ε_j) (c·ε_j)); where
    nothing is, j² times d² + d with both.
    """
    d, windows = 4, np.arange(1, 7)
    traces = {
        kind: over_a_run(kind(1, 0.1, staggered=False), learner(jnp.ones(d)), Nothing(), 20000, 6).var(axis=0).sum(-1)
        for kind in (PES, NRES)
    }
    scale = 1 if learner is Forgets else windows**2
    np.testing.assert_allclose(traces[NRES], scale * (d**2 + d), rtol=0.06)
    by_hand = d * (d * windows + 1) if learner is Forgets else scale * (d**2 + d)
    np.testing.assert_allclose(traces[PES], by_hand, rtol=0.06)
    if learner is Forgets:
        assert (traces[NRES][1:] < 0.7 * traces[PES][1:]).all()


@pytest.mark.parametrize("kind", [PES, NRES])
def test_through_a_learner_with_a_start_and_rates_of_its_own(kind):
    """Weights that act at the start of a run only, and a rate at every step; end loss, random tasks, random keys."""
    learner, tasks = maml(curve(), number(0.3), steps=4), Slopes(number(1.0))
    found = over_a_run(kind(1, 1e-3, unroll=2, every_step=False, staggered=False), learner, tasks, 20000, 2)
    at, leaves = at_of(learner, batch=4000)
    exact = jnp.stack(jax.jit(lambda: Unrolled().cross(at, tasks, leaves, None, key=key(7))[1])())
    means = found.mean(axis=1)
    error = means.std(axis=0) / len(means) ** 0.5
    assert (error < 0.1 * jnp.abs(exact).max()).all(), "too noisy to tell anything"
    assert (jnp.abs(means.mean(axis=0) - exact) < 4 * error).all()


def test_a_run_by_hand_is_the_run():
    learner, tasks = maml(curve(), number(0.3), steps=4), Slopes(number(1.0))
    run = next(iter(Expected(learner).runs(tasks, key=key(3))))
    state, task = run.start(), run.task()
    for i in range(4):
        state = run.step(state, task, jnp.array(i))
    np.testing.assert_allclose(run.loss(state, task)[0], run.score()[0], rtol=1e-12)
    with pytest.raises(ValueError, match="no data yet"):
        next(iter(Expected(learner).runs(None, key=key(3)))).task()


def test_workers_take_turns_and_begin_anew():
    learner = maml(curve(), number(0.3), steps=6)
    gradient = PES(pairs=3, unroll=2)
    at, leaves = at_of(learner, batch=2)
    state = gradient.begin(at, leaves, key=key(0))
    np.testing.assert_array_equal(state.clock, [0, 0, -1, -1, -2, -2])
    cross = jax.jit(lambda state, key: gradient.cross(at, Slopes(number(1.0)), leaves, state, key=key)[2])
    clocks, lives = [state.clock], []
    for i in range(7):
        state = cross(state, jax.random.key(i, impl="unsafe_rbg"))
        clocks.append(state.clock)
        lives.append(state.life[0])
    np.testing.assert_array_equal(np.array(clocks)[:, 0], [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(np.array(clocks)[:, 4], [-2, -1, 0, 1, 2, 0, 1, 2])
    new = [bool(jnp.any(a != b)) for a, b in itertools.pairwise(lives)]
    assert new == [False, False, True, False, False, True]  # a new task with a new run, and only then
    assert float(jnp.abs(state.states.leaves[0][:, 0] - state.states.leaves[0][:, 1]).min()) > 0  # two sides


def test_whole_runs_are_plain_evolution_strategies():
    """In expectation, and where there is no run at all to the last bit."""
    learner, tasks = maml(Bowl(number(0.9)), number(0.4), steps=2), Bowls(number(0.7), number(1.3))
    found = over_a_run(PES(1, 1e-3, unroll=9, every_step=False), learner, tasks, 20000, 1)[:, 0]
    at, leaves = at_of(learner)
    exact = jnp.stack(Unrolled().cross(at, tasks, leaves, None, key=key(0))[1])
    assert (np.abs(found.mean(axis=0) - exact) < 3.5 * found.std(axis=0) / len(found) ** 0.5).all()
    states = [
        Descend(curve(), sgd(0.1), steps=3, gradient=how(pairs=4)).adapt(data(0), key=key(1)).leaves
        for how in (PES, NRES, Evolution)
    ]
    assert states[0] == states[1] == states[2]


def test_the_storey_above_differentiates_it():
    tower = up(lift(maml(curve(), number(0.3), steps=2), sgd(number(0.1)), batch=2, steps=3, gradient=NRES(2, 0.1)))
    objective = Expected(tower.objective.learner, 1)
    leaves = pick(objective)

    def loss(leaves):
        return put(objective, leaves).loss(data(2), key=key(0))[0]

    slope, step = jax.jit(jax.grad(loss))(leaves), 1e-5
    for i in range(len(leaves)):
        above, below = (loss([leaf + s * step * (j == i) for j, leaf in enumerate(leaves)]) for s in (1, -1))
        np.testing.assert_allclose(slope[i], (above - below) / (2 * step), rtol=1e-5, atol=1e-9)


def test_the_clock_counts_what_is_played():
    shown = describe(lift(maml(curve(), 0.3, steps=6), sgd(0.1), batch=4, gradient=PES(pairs=3, unroll=2)))
    assert "= 48 base-learner steps" in shown  # 4 tasks, 6 runs each, 2 steps


def test_what_makes_no_sense_is_refused():
    for bad in (lambda: PES(pairs=0), lambda: NRES(sigma=0.0), lambda: PES(unroll=0)):
        with pytest.raises(ValueError, match="expected pairs >= 1"):
            bad()
    with pytest.raises(ValueError, match="not a whole number of windows of 4"):
        lift(maml(curve(), 0.3, steps=6), sgd(0.1), gradient=PES(unroll=4)).start(key=key(0))
