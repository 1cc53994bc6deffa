"""Memories on three clocks: what is kept, what is reset, and what may be seen."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract import adaptation, stepped
from tests.toys import Slopes, curve, data, key, number

from metatower import Descend, adam, lift, sgd
from metatower.core import pick
from metatower.evaluation.episodes import adaptation_scores
from metatower.gradients import Lifelong, rising_weights
from metatower.learners import lifetime, recurrent_adaptation
from metatower.rules import learned_mlp
from metatower.tasks.functions import FunctionFamily
from metatower.tasks.pooled import Mismatched

pytestmark = pytest.mark.usefixtures("quick_compile")
FAMILY = FunctionFamily(shots=3, queries=3)


class Slow(Slopes):
    """A distribution of distributions: slopes around one that is drawn."""

    def sample(self, key):
        slope = self.slope + 2 * jax.random.uniform(key)
        return type(super().sample(key))(Slopes(slope), Slopes(slope))


def life(**options):
    return lifetime(adaptation(), 3, key=key(1), **options)


def test_fresh_it_does_what_its_rule_does():
    rule = learned_mlp(0.2, key=key(2), power=1.0, like="gradient")
    learner = recurrent_adaptation(curve(), rule, 3, key=key(3), life=4, units=2, rank=2)
    ours, plain = (each.adapt(data(0), key=key(0)) for each in (learner, Descend(curve(), sgd(0.2), steps=3)))
    for a, b in zip(ours.leaves, plain.leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    remembering = learner.remembering(jnp.ones(4)).start(key=key(0))  # says nothing yet: its readouts are zero
    np.testing.assert_allclose(remembering.leaves[0], curve().w)


def test_memory_changes_where_a_task_starts_and_how_it_is_learned():
    learner = adaptation()
    blank, full = learner.start(key=key(0)), learner.remembering(jnp.ones(3)).start(key=key(0))
    wanted = jnp.ones(3) @ learner.shift @ learner.basis[0]
    np.testing.assert_allclose(full.leaves[0] - blank.leaves[0], wanted, rtol=1e-5)
    same_place = eqx.tree_at(lambda state: state.leaves, full, blank.leaves)
    moves = [learner.step(state, data(0), key=key(0)).leaves[0] - blank.leaves[0] for state in (blank, same_place)]
    assert abs(moves[0] - moves[1]) > 1e-4


def test_leaves_that_do_not_move_on_a_task_are_moved_by_the_memory_alone():
    rule = learned_mlp(0.2, key=key(2), power=1.0, like="gradient")
    some = lambda objective: objective.b  # noqa: E731
    how = {"key": key(3), "life": 4, "units": 2, "rank": 2}
    learner, whole = (recurrent_adaptation(curve(), rule, 3, learn=learn, **how) for learn in (some, None))
    learner = eqx.tree_at(lambda each: each.shift, learner, jnp.ones_like(learner.shift))
    began = learner.remembering(jnp.ones(4)).start(key=key(0))
    assert not np.allclose(began.leaves[0], curve().w)  # the lifetime memory moves all
    ended = began
    for _ in range(3):
        ended = learner.step(ended, data(0), key=key(0))
    np.testing.assert_array_equal(ended.leaves[0], began.leaves[0])
    assert not np.allclose(ended.leaves[1], began.leaves[1])
    assert learner.gru.weight_ih.shape[1] == whole.gru.weight_ih.shape[1] - 1  # one leaf less to be seen
    plain = Descend(curve(), sgd(0.2), steps=3, learn=some).adapt(data(0), key=key(0))
    fresh = dataclasses.replace(learner, shift=jnp.zeros_like(learner.shift)).adapt(data(0), key=key(0))
    np.testing.assert_allclose(fresh.leaves[1], plain.leaves[0], rtol=1e-5)


def test_one_clock_ticks_per_step_one_per_task_and_none_starts_again_too_soon():
    learner = life()
    memory = learner.start(key=key(0))
    assert not jnp.any(memory)
    memories = [memory := learner.step(memory, data(1), key=key(i)) for i in range(3)]
    assert len({tuple(np.asarray(each).tolist()) for each in memories}) == 3
    task = learner.result(memories[-1]).adapt(data(0), key=key(0))
    np.testing.assert_array_equal(task.life, memories[-1])  # a task does not change it
    assert task.rule.count == 2
    assert jnp.any(task.task)
    fresh = learner.result(memories[-1]).start(key=key(0))
    assert fresh.rule.count == 0  # the clocks of number and task are those of the task
    assert not jnp.any(fresh.task)


def test_a_memory_that_is_reset_gives_the_same_loss_for_every_task_and_one_that_is_kept_does_not():
    def losses(learner):
        return adaptation_scores(learner, Slow(number(1.0)), episodes=3, seed=0, steps=4)["loss"]

    forgetting, keeping = losses(life(forgets=True)), losses(life())
    np.testing.assert_array_equal(forgetting, np.broadcast_to(forgetting[:, :1], forgetting.shape))
    np.testing.assert_allclose(keeping[:, 0], forgetting[:, 0], rtol=1e-5)  # the first task knows no others
    assert np.all(np.abs(np.diff(keeping, axis=1)).max(axis=0) > 1e-5)


def test_the_query_of_a_task_is_seen_only_after_it_is_judged():
    class Other(Slopes):
        shift: jax.Array

        def sample(self, key):
            task = super().sample(key)
            return eqx.tree_at(lambda task: task.query.y, task, task.query.y + self.shift)

    learner, memory = life(), jnp.full(3, 0.3)

    def state(shift):
        task = Other(number(1.0), number(shift)).sample(key(4))
        return learner.result(memory).adapt(task.support, key=key(5)), learner.step(
            memory, Other(number(1.0), number(shift)), key=key(4)
        )

    (adapted, after), (other_adapted, other_after) = state(0.0), state(1.0)
    for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(other_adapted), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jnp.any(after != other_after)  # the next task profits from it


def test_mismatched_members_share_the_judgement_and_not_the_lessons():
    task, other = FAMILY.sample(key(3)), Mismatched(FAMILY).sample(key(3))
    assert jnp.array_equal(task.query.amplitude, other.query.amplitude)
    assert task.support.amplitude == task.query.amplitude
    assert other.support.amplitude != other.query.amplitude


def test_lifelong_is_the_weighted_sum_of_all_losses():
    learner, task = life(), Slow(number(1.0)).sample(key(6))
    weights = jnp.array([0.1, 0.2, 0.3, 0.4])

    @jax.jit
    def through(weights):
        def loss(readout):
            changed = eqx.tree_at(lambda learner: learner.learner.shift, learner, readout)
            return Lifelong(weights).score(changed, task, key=key(7))[0]

        return jax.value_and_grad(loss)(learner.learner.shift)

    value, slope = through(weights)
    parts = [through(jnp.eye(4)[i]) for i in range(4)]
    assert all(part[0] == value for part in parts)  # the value is the loss at the end
    np.testing.assert_allclose(slope, sum(w * part[1] for w, part in zip(weights, parts, strict=True)), rtol=1e-4)
    assert not jnp.any(parts[0][1])  # the first task is met before anything is remembered
    assert jnp.any(parts[1][1])


def test_lifelong_of_logarithms_counts_by_how_many_times():
    learner, task = life(), Slow(number(1.0)).sample(key(6))

    @jax.jit
    def both(end):
        def loss(readout, logarithm):
            changed = eqx.tree_at(lambda learner: learner.learner.shift, learner, readout)
            return Lifelong(end, logarithm).score(changed, task, key=key(7))[0]

        return [jax.value_and_grad(loss)(learner.learner.shift, logarithm) for logarithm in (False, True)]

    (value, slope), (same, relative) = both(jnp.array([0.0, 0.0, 0.0, 1.0]))
    assert value == same
    np.testing.assert_allclose(relative, slope / value, rtol=1e-4)


def test_lifelong_says_what_it_cannot_do():
    with pytest.raises(ValueError, match="expected 4 weights, for 3 steps and the judgement, got 3"):
        Lifelong(jnp.ones(3)).score(life(), Slow(number(1.0)).sample(key(0)), key=key(0))


def test_storey_two_trains_all_networks_and_the_initial_weights():
    learner = life()
    tower = lift(learner, adam(1e-2), batch=2, gradient=Lifelong(rising_weights(3)))
    assert tower.height == 2
    state = stepped(tower, Slow(number(1.0)))[0]
    moved = [bool(jnp.any(a != b)) for a, b in zip(pick(tower.objective), state.leaves, strict=True)]
    # a rate of a scalar leaf may stay where it is; the networks and weights may not
    assert sum(moved) >= len(moved) - 2
    assert dataclasses.replace(tower.result(state).learner, forgets=True).forgets
