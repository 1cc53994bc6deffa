"""What is predicted, what is chosen, and what XLA then reports."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import Descend, adam, lift, rates_for, sgd
from metatower.core.errors import UserError
from metatower.gradients import Truncated
from metatower.gradients.fit import fit
from metatower.nets import MLP, Examples, Supervised, cross_entropy, squared_error
from metatower.nets.conv import ConvNet
from metatower.tasks.episodes import Episodes
from metatower.tasks.functions import FunctionFamily, Sinusoids


def maml(sizes, steps):
    net = Supervised(MLP(sizes, key=jax.random.key(0)), squared_error)
    return Descend(net, sgd(rates_for(net, 0.01)), steps=steps)


def trainer(sizes=(1, 40, 40, 1), steps=5, batch=32, shots=10):
    return lift(maml(sizes, steps), adam(1e-3), batch=batch), Sinusoids(shots, shots)


def optimiser(batch=8, steps=12):
    below = lift(maml((1, 32, 32, 1), 3), sgd(jnp.array(0.01)), batch=4, steps=steps)
    return lift(below, adam(1e-3), batch=batch), FunctionFamily()


def reported(tower, tasks):
    """Working memory, inputs and outputs of the compiled step, as XLA reports them."""
    state = tower.start(key=jax.random.key(0))

    def step(tower, state, tasks, key):
        return tower.update(state, tasks, key=key)

    dynamic, static = eqx.partition((tower, state, tasks), eqx.is_array)
    program = jax.jit(lambda dynamic, key: eqx.filter(step(*eqx.combine(dynamic, static), key), eqx.is_array))
    analysis = program.lower(dynamic, jax.random.key(1)).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def on_pictures(batch=16, steps=3):
    net = ConvNet(5, key=jax.random.key(0), image=(14, 14, 1), channels=(16, 16), stride=2)
    images = np.random.default_rng(0).integers(0, 255, (20, 6, 14, 14), dtype=np.uint8)
    objective = Supervised(net, cross_entropy)
    below = Descend(objective, sgd(rates_for(objective, 0.01)), steps=steps)
    return lift(below, adam(1e-3), batch=batch), Episodes(images, np.full(20, 6), ways=5, shots=1, queries=5)


TOWERS = {
    "two layers": trainer,
    "a long run": lambda: trainer(steps=40, batch=16),
    "wide, many examples": lambda: trainer((1, 100, 100, 100, 1), 3, 24, 100),
    "convolutions": on_pictures,
    "a storey more": optimiser,
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("convolutions", "a storey more") else n for n in TOWERS]
)
def test_it_fits_as_predicted(name):
    tower, tasks = TOWERS[name]()
    here, share = reported(tower, tasks), 0.35
    found = fit(tower, tasks, int(share * here))
    assert found.memory <= share * here
    assert abs(found.predicted - found.memory) <= 0.2 * found.memory
    assert reported(found.tower, tasks) == pytest.approx(found.memory, rel=0.2)


def test_a_tower_that_fits_stays_as_it_is():
    tower, tasks = trainer()
    found = fit(tower, tasks, 2**40)
    assert found.tower is tower
    assert str(found).startswith("as it is, 32 tasks at a time: ")


@pytest.mark.usefixtures("x64", "quick_compile")
def test_the_chosen_tower_takes_the_same_step():
    tower, tasks = trainer(batch=8)
    found = fit(tower, tasks, int(0.5 * reported(tower, tasks)))
    assert found.chunk < 8
    state = tower.start(key=jax.random.key(0))
    steps = [jax.jit(lambda t=t: t.step(state, tasks, key=jax.random.key(1)).leaves)() for t in (tower, found.tower)]
    for a, b in zip(*steps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.usefixtures("quick_compile")
def test_what_nothing_fits_into_is_answered_with_the_least_that_is_possible():
    tower, tasks = trainer(batch=4)
    with pytest.raises(UserError, match=r"into 1\.00 KiB|into 1 KiB: the least is .* KiB \(.*\)\. Give it more"):
        fit(tower, tasks, 1024)
    net = Descend(Supervised(MLP((1, 8, 1), key=jax.random.key(0)), squared_error), sgd(0.1))
    with pytest.raises(UserError, match=r"the least is .* \(as it is\)"):
        fit(net, Examples(jnp.ones((5, 1)), jnp.ones((5, 1))), 10)


@pytest.mark.usefixtures("quick_compile")
def test_an_estimator_that_was_chosen_stays():
    tower, tasks = trainer(steps=10, batch=8)
    tower = dataclasses.replace(tower, gradient=Truncated(last=2))
    found = fit(tower, tasks, int(0.7 * reported(tower, tasks)))
    assert isinstance(found.tower.gradient, Truncated)
