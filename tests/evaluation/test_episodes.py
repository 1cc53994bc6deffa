import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Descend, Learner, Task, Tasks, adam, lift, sgd
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.episodes import Fixed, adaptation_curve, adaptation_scores, episode_keys, evaluate, judged_on
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import Sinusoids
from metatower.training.progress import Progress


class Centre(Tasks):
    """A task is a number."""

    def sample(self, key):
        centre = jax.random.normal(key)
        return Task(centre, centre)


class Halver(Learner):
    """Halves its distance from the support with each step: everything is known by hand."""

    steps: int = eqx.field(static=True, default=2)

    def start(self, *, key):
        return jnp.zeros(())

    def step(self, state, data, *, key):
        return (state + data) / 2

    def loss(self, state, data, *, key):
        return (state - data) ** 2, {"distance": jnp.abs(state - data)}


def maml(steps=1):
    return Descend(Supervised(MLP((1, 8, 1), key=jax.random.key(0)), squared_error), sgd(0.01), steps)


def test_known_answers():
    keys = episode_keys(3, 0, 5)
    centres = np.array([jax.random.normal(fork(key, 3)[0]) for key in keys])
    found = evaluate(Halver(), Centre(), episodes=5, seed=3)
    np.testing.assert_allclose(found["loss"], (centres / 4) ** 2, rtol=1e-5)
    np.testing.assert_allclose(found["distance"], np.abs(centres) / 4, rtol=1e-5)


def test_the_curve_starts_before_adaptation_and_passes_the_evaluation():
    found = adaptation_scores(Halver(), Centre(), episodes=5, seed=3, steps=4)
    distance = found["distance"]
    assert distance.shape == (5, 5)
    np.testing.assert_allclose(distance[:, 1:], distance[:, :-1] / 2, rtol=1e-5)
    np.testing.assert_allclose(distance[:, 2], evaluate(Halver(), Centre(), episodes=5, seed=3)["distance"], rtol=1e-5)


def test_the_curves_intervals_are_those_of_the_scores():
    scores = adaptation_scores(maml(), Sinusoids(), episodes=6, seed=0, steps=3)["loss"]
    curve = adaptation_curve(maml(), Sinusoids(), episodes=6, seed=0, steps=3)["loss"]
    assert curve.n == 6
    np.testing.assert_allclose(curve.mean, scores.mean(axis=0), rtol=1e-6)
    assert np.all(curve.lo < curve.mean)


def test_no_steps_is_before_adaptation():
    found = adaptation_scores(Halver(), Centre(), episodes=4, seed=0, steps=0)
    assert found["loss"].shape == (4, 1)
    np.testing.assert_allclose(found["loss"][:, 0], evaluate(Halver(0), Centre(), episodes=4, seed=0)["loss"])


def test_an_episode_is_the_same_task_however_many_there_are():
    few = evaluate(maml(), Sinusoids(), episodes=3, seed=5)["loss"]
    many = evaluate(maml(), Sinusoids(), episodes=11, seed=5, chunk=4)["loss"]
    assert many.shape == (11,)
    np.testing.assert_allclose(few, many[:3], rtol=1e-5)
    assert len(np.unique(many)) == 11


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_tasks():
    one, same, other = (evaluate(maml(), Sinusoids(), episodes=4, seed=seed)["loss"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.any(np.isin(one, other))


def test_it_is_compiled_once_for_all_chunks_learners_and_distributions():
    class Counting(Sinusoids):
        def sample(self, key):
            traces.append(1)
            return super().sample(key)

    traces = []
    evaluate(maml(), Counting(), episodes=7, seed=0, chunk=3)
    other = Descend(Supervised(MLP((1, 8, 1), key=jax.random.key(9)), squared_error), sgd(0.01))
    evaluate(other, Counting(amplitude=(1.0, 2.0)), episodes=7, seed=4, chunk=3)
    assert len(traces) == 2  # one step, one judgement


class Amplitudes(Tasks):
    """A family: each distribution has waves of one amplitude."""

    def sample(self, key):
        amplitude = jax.random.uniform(key, (1,), minval=1.0, maxval=3.0).repeat(2)
        member = eqx.tree_at(lambda waves: waves.amplitude, Sinusoids(3, 3), amplitude)
        return Task(member, member)


@pytest.mark.usefixtures("quick_compile")
def test_a_learner_of_storey_one_is_judged_by_whole_runs():
    trainer = lift(maml(), adam(1e-2), batch=4, steps=2, judged=16)
    curve = adaptation_scores(trainer, Amplitudes(), episodes=6, seed=0, steps=40)["loss"]
    assert curve.shape == (6, 41)
    assert np.all(curve[:, -1] < curve[:, 0])
    assert evaluate(trainer, Amplitudes(), episodes=6, seed=0)["loss"].shape == (6,)


@pytest.mark.usefixtures("quick_compile")
def test_a_run_is_the_same_on_however_many_tasks_it_is_judged():
    class Counting(Amplitudes):
        def sample(self, key):
            traces.append(1)
            return super().sample(key)

    traces = []
    trainer = lift(maml(), adam(1e-2), batch=4, steps=2, judged=3)
    few = evaluate(trainer, Counting(), episodes=4, seed=0)["loss"]
    assert len(traces) == 2
    more = evaluate(judged_on(trainer, 200), Counting(), episodes=4, seed=0)["loss"]
    assert len(traces) == 3  # another judgement, the same step
    many = evaluate(judged_on(trainer, 201), Counting(), episodes=4, seed=0)["loss"]
    assert np.abs(many - more).max() < np.abs(many - few).max()


@pytest.mark.usefixtures("quick_compile")
def test_one_fixed_distribution_is_a_family_of_one():
    trainer = lift(maml(), adam(1e-2), batch=4, steps=2)
    train, test = Sinusoids(amplitude=(1.0, 1.0)), Sinusoids(amplitude=(3.0, 3.0))
    task = Fixed(train, test).sample(jax.random.key(0))
    assert task.support is train
    assert task.query is test
    assert evaluate(trainer, Fixed(train, test), episodes=2, seed=0)["loss"].shape == (2,)


@pytest.mark.parametrize(("how", "match"), [({"episodes": 0}, "one episode"), ({"seed": -1, "episodes": 1}, "seed")])
def test_what_cannot_be_evaluated_is_refused(how, match):
    with pytest.raises(UserError, match=match):
        evaluate(Halver(), Centre(), **{"seed": 0, **how})


def test_progress_hears_of_every_episode_and_of_the_end():
    class Listening(Progress):
        def __init__(self):
            self.heard = []

        def start(self, title, total, done=0):
            self.heard.append(("start", title, total))

        def advance(self, n, **numbers):
            self.heard.append(("advance", n, sorted(numbers)))

        def note(self, text):
            raise AssertionError(text)

        def finish(self):
            self.heard.append(("finish",))

    show = Listening()
    # a chunk is rounded up to give every device as many episodes
    chunk = 2 * jax.device_count()
    evaluate(Halver(), Centre(), episodes=2 * chunk + 1, seed=0, chunk=chunk - 1, show=show, title="here")
    advances = [("advance", n, ["loss"]) for n in (chunk, chunk, 1)]
    assert show.heard == [("start", "here", 2 * chunk + 1), *advances, ("finish",)]
