import jax
import pytest
from tests.contract import LEARNERS, ROWS
from tests.toys import Memory, curve, number, up

from metatower import Constant, Descend, adam, clip, lift, per_step, rates_for, sgd
from metatower.core.describe import base_steps, describe
from metatower.gradients import Evolution, ForwardMode
from metatower.nets import MLP, Supervised, squared_error

TOWER = """\
storey 3: Descend on Expected
  learns    7 numbers in 4 arrays
              storey 0  w                       []      1
              storey 0  b                       []      1
              storey 0  rule.rule.rate.numbers  [2, 2]  4
              storey 1  rule.rule.rate          []      1
  rule      Adam(rate 0.01, b1 0.9, b2 0.999, eps 1e-08)
  gradient  Unrolled
  clock     1 step here = 2 tasks x 7 steps of storey 2 + judging = 3,780 base-learner steps
storey 2: Descend on Expected
  learns    1 number in 1 array
              storey 1  rule.rule.rate  []  1
  rule      SGD(rate 0.5)
  gradient  ForwardMode
  clock     7 steps per adaptation; 1 step here = 3 tasks x 5 steps of storey 1 + judging = 252 base-learner steps
storey 1: Descend on Expected
  learns    6 numbers in 3 arrays
              storey 0  w                       []      1
              storey 0  b                       []      1
              storey 0  rule.rule.rate.numbers  [2, 2]  4
  rule      Clip(SGD(rate 0.1 (learned by storey 2)), norm 1)
  gradient  Unrolled
  clock     5 steps per adaptation; 1 step here = 4 tasks x 2 steps of storey 0 = 8 base-learner steps
storey 0: Descend on Curve
  learns    2 numbers in 2 arrays
              storey 0  w  []  1
              storey 0  b  []  1
  rule      PerStep(SGD(rate 0.3 in [2, 2] (learned by storey 1)))
  gradient  Unrolled
  clock     2 steps per adaptation"""


def tower():
    maml = Descend(curve(), per_step(sgd(rates_for(curve(), 0.3, steps=2))), steps=2)
    trainer = lift(maml, clip(sgd(number(0.1)), 1.0), batch=4, steps=5, judged=1)
    rates = lift(trainer, sgd(0.5), batch=3, steps=7, gradient=ForwardMode(), learn=lambda t: t.rule.rule.rate)
    return lift(rates, adam(1e-2), batch=2)


def test_a_storey_3_tower():
    assert str(describe(tower())) == TOWER
    assert repr(describe(tower())) == TOWER


def test_base_steps_count_adaptation_judging_and_evaluations():
    learner = Descend(curve(), sgd(0.1), steps=3)
    one = lift(learner, sgd(number(0.1)), batch=4, steps=5, judged=6)
    assert base_steps(learner) == 1
    assert base_steps(one) == 4 * 3
    assert base_steps(lift(one, sgd(0.1), batch=2)) == 2 * (5 * 4 * 3 + 6 * 3)
    assert base_steps(lift(one, sgd(0.1), batch=2, gradient=Evolution(pairs=10))) == 21 * 2 * (5 * 4 * 3 + 6 * 3)
    assert base_steps(lift(one, sgd(0.1), batch=2, gradient=ForwardMode(), learn=lambda t: t.rule)) == 2 * 2 * 78


def test_a_learner_without_gradient_shows_what_it_offers():
    text = describe(up(Memory(number(0.3), number(2.0))))
    assert "offers    2 numbers in 2 arrays to the storey above, learned by storey 1" in text
    assert "2 steps per adaptation" in text


def test_a_wrapper_of_a_learner_of_its_own_height_is_one_storey_with_it():
    class Wrapped(Memory):
        inside: Memory

    text = describe(Wrapped(number(0.1), number(0.2), Memory(number(0.3), number(0.4))))
    assert text.startswith("storey 0: Wrapped")
    assert text.count("storey 0:") == 1
    assert "inside.decay" in text
    assert "inside.gain" in text


@pytest.mark.parametrize("row", ROWS)
def test_everything_in_the_table_is_described_at_storey_2(row):
    text = describe(up(up(ROWS[row]())))
    assert "<" not in text
    assert "object at" not in text


def test_fixed_and_learned_hyper_parameters_are_told_apart():
    net = Supervised(MLP((1, 3, 1), key=jax.random.key(0)), squared_error)
    fixed = describe(lift(Descend(net, sgd(Constant(0.25))), sgd(0.1)))
    assert "SGD(rate 0.25)" in fixed
    assert "SGD(rate 0.25 (learned by storey 1))" in describe(lift(Descend(net, sgd(number(0.25))), sgd(0.1)))


def test_an_objective_is_no_tower():
    with pytest.raises(TypeError, match="Learner"):
        describe(curve())  # ty: ignore
    assert describe(LEARNERS["maml"]()).startswith("storey 0")
