"""The meta-GAN: what is read, what is generated, who moves whom, and what is remembered."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.toys import key, number

from metatower import Descend, Expected, adam, clip, rates_for, sgd
from metatower.core import pick, put, value
from metatower.core.keys import fork
from metatower.evaluation.generated import audit, diversity, drawn, structures
from metatower.evaluation.predictions import best_sigma, calibration_error, mixture_nll, predictions
from metatower.learners.elites import context_of, from_elites
from metatower.learners.meta_gan import meta_gan, prescribed
from metatower.learners.meta_gan_trainer import both, meta_gan_trainer, solution
from metatower.nets import MLP, Supervised, squared_error
from metatower.nets.super_net import OPS, of_ops, super_net
from metatower.tasks.functions import FunctionFamily, OfKind

pytestmark = pytest.mark.usefixtures("quick_compile")
FAMILY = FunctionFamily(shots=3, queries=4)
PROBES = jnp.linspace(-5, 5, 4)[:, None]


def learner(**options):
    objective = Supervised(super_net((1, 4, 4, 1), key=key(0)), squared_error)
    base = Descend(objective, sgd(rates_for(objective, 0.05)), steps=2)
    return meta_gan(base, 1, 1, key=key(1), chance=3, context=5, steps=3, batch=2, judged=2, **options)


def trainer(rate=0.1, other=0.1, **options):
    sizes = {"distributions": 2, "tasks": 2, "context": 3, "pairs": 2, "bank": 4, "fresh": 2, "every": 2, "long": 20}
    rules = {"generator": sgd(number(rate)), "discriminator": sgd(number(other))}
    return meta_gan_trainer(learner(), FAMILY, PROBES, rules, key=key(2), warm=1, cool=4, **{**sizes, **options})


def after(made, steps, seed=3):
    state = made.start(key=key(0))
    for i in range(steps):
        state, _ = update(made, state, key(seed + i))
    return state


@eqx.filter_jit  # one program for all trainers of these tests: they differ in numbers only
def update(made, state, key):
    return made.update(state, FAMILY, key=key)


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_a_run_reads_the_mean_of_its_tasks_and_generates_from_it_alone():
    made, pool = learner(), FAMILY.sample(key(5)).support
    state = made.adapt(pool, key=key(6))
    assert state.tasks == 6  # three steps of two tasks
    steps = fork(fork(key(6), 2)[1], 3)
    tasks = [pool.sample(fork(k, 2)[0]) for step in steps for k in fork(step, 2)]
    mean = sum(made.encode(task) for task in tasks) / 6
    np.testing.assert_allclose(made.context(state.total, state.tasks)[:-1], mean, rtol=1e-4, atol=1e-6)
    found = made.result(state)
    assert isinstance(found, Descend)
    wanted = made.generate(state.z, made.context(state.total, state.tasks))[0]
    assert same(pick(found), pick(wanted))
    other = made.result(made.adapt(FAMILY.sample(key(7)).support, key=key(6)))
    assert not same(pick(found), pick(other))


def test_another_draw_reads_the_same_tasks():
    made, pool = learner(), FAMILY.sample(key(5)).support
    one, two = (drawn(made, i).adapt(pool, key=key(6)) for i in (0, 1))
    assert same(one.total, two.total)
    assert jnp.all(one.z != two.z)
    assert same(one, made.adapt(pool, key=key(6)))


def test_refining_takes_mamls_step_on_the_tasks_that_were_read():
    made, pool = learner(refine=sgd(0.1)), FAMILY.sample(key(5)).support
    state = made.step(made.start(key=key(0)), pool, key=key(6))
    plain = dataclasses.replace(made, refine=None)
    phi = plain.result(plain.step(plain.start(key=key(0)), pool, key=key(6)))
    slope = jax.grad(lambda leaves: Expected(put(phi, leaves), 2).loss(pool, key=key(6))[0])(pick(phi))
    for moved, g in zip(state.moved, slope, strict=True):
        np.testing.assert_allclose(moved, -0.1 * g, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pick(made.result(state))[0], pick(phi)[0] + state.moved[0], rtol=1e-6)


def test_the_structure_may_be_prescribed():
    ops = of_ops(("gauss", "gauss"), 4).ops
    made, c = prescribed(learner(), "given", ops), jnp.ones(6)
    assert same(value(made.generate(jnp.ones(3), c)[0].objective.net.structure).ops, ops)
    random = prescribed(learner(), "random")
    drawn_ops = jax.vmap(lambda z: value(random.generate(z, c)[0].objective.net.structure).ops)(
        jax.random.normal(key(3), (500, 3))
    )
    np.testing.assert_allclose(drawn_ops.mean(axis=(0, 1)), 0.2, atol=0.05)
    with pytest.raises(ValueError, match="one of generated, given, random; got 'best'"):
        prescribed(learner(), "best")
    plain = Descend(Supervised(MLP((1, 2, 1), key=key(0)), squared_error), sgd(0.1))
    with pytest.raises(ValueError, match="expected a `Descend` on a `Supervised` super-net"):
        meta_gan(plain, 1, 1, key=key(0))


def test_the_gradient_of_each_player_goes_to_that_player_only():
    start = trainer().start(key=key(0)).players
    both_move = after(trainer(), 1)
    only_one = after(trainer(other=0.0), 1)
    only_other = after(trainer(rate=0.0), 1)
    assert same(only_one.players["discriminator"].leaves, start["discriminator"].leaves)
    assert same(only_other.players["generator"].leaves, start["generator"].leaves)
    # what one does in a step does not depend on whether the other moves
    for name, alone in (("generator", only_one), ("discriminator", only_other)):
        assert not same(alone.players[name].leaves, start[name].leaves)
        for a, b in zip(alone.players[name].leaves, both_move.players[name].leaves, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_without_the_adversarial_term_the_generator_does_not_listen():
    def moved(weight):
        made = trainer(adversarial=weight)
        louder = eqx.tree_at(lambda made: made.discriminator.direct, made, 5 * made.discriminator.direct)
        # from the second step on: λ_a rises from 0
        return [after(each, 2).players["generator"].leaves for each in (made, louder)]

    assert same(*moved(0.0))
    assert not same(*moved(1.0))


def test_while_structures_are_random_no_operation_is_credited():
    made = trainer(usage=0.0, cost=0.0, explore=1000, credit="score")
    np.testing.assert_array_equal(made.learner.generator.ops, made.result(after(made, 1)).generator.ops)


def test_operations_are_credited_by_what_they_are_worth():
    # straight lines, and lines with a few corners, do not get near to waves in two steps
    objective = Supervised(super_net((1, 8, 1), key=key(0)), squared_error)
    base = Descend(objective, sgd(rates_for(objective, 0.05)), steps=2)
    made = meta_gan(base, 1, 1, key=key(1), chance=3, context=5, batch=2)
    sizes = {"distributions": 8, "tasks": 2, "context": 3, "pairs": 1, "bank": 2, "fresh": 1, "every": 100, "long": 1}
    weights = {"usage": 0.0, "cost": 0.0, "diversity": 0.0, "adversarial": 0.0, "credit": "score"}
    rules = {name: clip(adam(number(0.01)), 1.0) for name in ("generator", "discriminator")}
    made = meta_gan_trainer(made, FAMILY, PROBES, rules, key=key(2), warm=1, cool=4, **sizes, **weights)

    def plain(learner):
        def one(key):
            said = learner.generate(jax.random.normal(key, (3,)), learner.context(jnp.zeros(5), number(0.0)))[1]
            return jnp.sum(jax.nn.softmax(said.op_logits)[:, [list(OPS).index(op) for op in ("skip", "relu")]])

        return float(jnp.mean(jax.vmap(one)(jax.random.split(key(9), 64))))

    assert plain(made.result(after(made, 20))) < 0.7 * plain(made.learner)


def test_elites_come_first_in_first_out_and_have_learned_their_task():
    made = trainer()
    state = after(made, 3)
    assert state.elites.count == 4  # two at step 0, two at step 2
    more = after(made, 5)
    assert more.elites.count == 6
    for old, new in zip(jax.tree.leaves(state.elites.content), jax.tree.leaves(more.elites.content), strict=True):
        np.testing.assert_array_equal(old[2:], new[2:])  # the two oldest have gone
    assert not same(state.elites.content.weights[0][:2], more.elites.content.weights[0][:2])
    for i in range(4):
        elite = jax.tree.map(lambda x, i=i: x[i], more.elites.content)
        end, _ = solution(made.learner.base.objective, elite).loss(both(elite.task), key=key(0))
        start, _ = made.learner.base.objective.loss(both(elite.task), key=key(0))
        assert end < start


def kept():
    made = trainer()
    state = after(made, 3)
    return made.result(state), state.elites


def test_a_bank_in_the_place_of_a_generator_gives_the_elite_whose_distribution_was_read():
    made, bank = kept()
    wanted = jax.tree.map(lambda x: x[2], bank.content)
    context = context_of(made, wanted.context)
    z = jnp.ones(3)
    found = from_elites(made, bank, "nearest").generate(z, context)[0]
    for a, b in zip(pick(found), [*wanted.weights, wanted.rates], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert same(value(found.objective.net.structure), wanted.structure)
    noisy = from_elites(made, bank, "noise").generate(z, context)[0]
    apart = jnp.abs(noisy.objective.net.layers[1].weight - wanted.weights[2])
    assert 0 < apart.mean() < 0.3 * jnp.abs(wanted.weights[2]).mean() + 0.1
    average = from_elites(made, bank, "average", near=4).generate(z, context)[0]
    np.testing.assert_allclose(
        average.objective.net.layers[0].weight, bank.content.weights[0].mean(axis=0), rtol=1e-4, atol=1e-6
    )


def test_the_audit_finds_out_who_only_remembers():
    from metatower import Constant

    made, bank = kept()
    memory = from_elites(made, bank, "nearest")
    memory = dataclasses.replace(memory, base=dataclasses.replace(memory.base, steps=0), elites=Constant(bank))
    assert audit(memory, FAMILY, PROBES, episodes=6, seed=0).replicas == 1.0
    honest = audit(dataclasses.replace(made, elites=Constant(bank)), FAMILY, PROBES, episodes=6, seed=0)
    assert honest.replicas < 1.0
    assert honest.elites_apart > 0
    with pytest.raises(Exception, match="two elites or more"):
        audit(made, FAMILY, PROBES, episodes=2, seed=0)
    before, after_ = diversity(made, FAMILY, PROBES, draws=3, episodes=4, seed=0)
    assert before.shape == after_.shape == (4,)
    assert np.all(before > 0)
    ops, cost = structures(made, FAMILY, episodes=4, seed=0)
    assert ops.shape == (4, 2)
    assert ops.max() < len(OPS)
    assert np.all((cost > 0) & (cost <= 1))


def test_predictions_are_what_the_learner_is_judged_by():
    made = dataclasses.replace(learner(), judged=5)
    from metatower.evaluation.episodes import evaluate

    said = predictions(made, FAMILY, (0, 2), episodes=3, seed=4, tasks=5)
    np.testing.assert_allclose(said.losses()[2], evaluate(made, FAMILY, episodes=3, seed=4)["loss"], rtol=1e-4)
    assert not np.allclose(said.losses()[0], said.losses()[2])


def test_mixtures_that_know_what_they_do_not_know():
    rng = np.random.default_rng(0)
    members = rng.normal(size=(5, 40, 200))
    truth = np.take_along_axis(members, rng.integers(5, size=(1, 40, 200)), 0)[0] + 0.3 * rng.normal(size=(40, 200))
    assert abs(best_sigma(truth, members) - 0.3) < 0.05
    right, wrong = (calibration_error(truth, members, sigma).mean() for sigma in (0.3, 3.0))
    assert right < 0.03 < wrong
    assert mixture_nll(truth, members, 0.3).mean() < mixture_nll(truth, members[:1], 0.3).mean()


def test_distributions_of_one_kind_differ_from_the_family_in_nothing_else():
    one, any_ = OfKind(FAMILY, jnp.int32(2)).sample(key(0)), FAMILY.sample(key(0))
    assert int(one.support.kind) == int(one.query.kind) == 2
    assert one.support.amplitude == any_.support.amplitude
