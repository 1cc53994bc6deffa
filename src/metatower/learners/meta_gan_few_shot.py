"""MetaGAN: a few-shot classifier with one class more, for pictures that a generator makes up."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import Descend, Learner, Metrics, Objective, Rule, Scored, Tasks, pick, put, run
from metatower.core.keys import fork
from metatower.core.leaves import Constant, strong, value
from metatower.learners.players import Player, enter, move_all
from metatower.nets.mlp import Linear
from metatower.nets.supervised import Examples, Supervised, cross_entropy

CLASSIFIER, GENERATOR = "classifier", "generator"


class Imitator(eqx.Module):
    """Makes fakes for a task: the mean of its inputs, and what a network adds to it, given chance and one input.

    Args:
        inputs: numbers in one input.
        chance: numbers in z.
        units: of the network's one layer.
    """

    enter: Linear
    leave: Linear
    chance: int = eqx.field(static=True)

    def __init__(self, inputs: int, chance: int = 32, units: int = 128, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.enter = Linear(2 * inputs + chance, units, key=keys[0])
        self.leave = Linear(units, inputs, key=keys[1])
        self.chance = chance

    def __call__(self, x: Float[Array, "n ..."], *, key: PRNGKeyArray) -> Float[Array, "n ..."]:
        """A fake for each input, of the same shape."""
        flat = x.reshape(len(x), -1)
        z = jax.random.normal(key, (len(x), self.chance), flat.dtype)
        mean = jnp.broadcast_to(jnp.mean(flat, axis=0), flat.shape)
        return (mean + self.leave(jnp.tanh(self.enter(jnp.concatenate([flat, mean, z], axis=1))))).reshape(x.shape)


class WithFakes(Objective):
    """The loss of a classifier that has to call the fakes fakes: equation 3 of Zhang et al. 2018, for labelled data.

        −log p(y | x)  −  weight · log p(N + 1 | fake)

    The fakes are made from the inputs of the data at hand. It is judged by the N classes alone.
    """

    net: Any
    """Gives N + 1 logits, the last for fakes."""
    make: Constant
    """Makes the fakes; no leaf of it moves on a task."""
    weight: Constant

    def loss(self, data: Examples, *, key: PRNGKeyArray) -> Scored:
        more = jnp.ones(1, bool)
        ways = None if data.ways is None else jnp.concatenate([data.ways, more])
        real, metrics = cross_entropy(self.net(data.x), dataclasses.replace(data, ways=ways))
        fakes = value(self.make)(data.x, key=key)
        return real - value(self.weight) * jnp.mean(jax.nn.log_softmax(self.net(fakes))[:, -1]), metrics

    def as_judge(self) -> Objective:
        return Supervised(Classes(self.net), cross_entropy)


class Classes(eqx.Module):
    """A network without its last output."""

    net: Any

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n way"]:
        return self.net(x)[:, :-1]


class Contest(eqx.Module):
    """The state of a `MetaGANFewShot`."""

    players: dict[str, Player]


class MetaGANFewShot(Learner):
    """Trains a few-shot classifier against a generator of fakes, so that its boundaries between classes get sharper.

    Zhang, Che, Ghahramani, Bengio & Song 2018, "MetaGAN: An Adversarial Approach to Few-Shot Learning", with MAML as
    the classifier. A learner of storey 1. On each of `batch` tasks the classifier adapts to the support set and to
    fakes made from it. Then its initial weights and rates move by its N + 1-way loss on the query and on fakes, through
    the inner steps, and the generator by −log(1 − p(N + 1 | fake)) of the adapted classifier; both at once.

    Differs from the paper in: the generator sees inputs of the task and their mean, where the paper's has an encoder of
    sets with attention; labelled pictures only; the generator takes no inner step.

    Args:
        classifier: a `Descend` on `WithFakes`.
        rules: how each player moves, by "classifier" and "generator".
        batch: tasks per step.
        judged: tasks in one `loss`.
    """

    classifier: Descend
    generator: Imitator
    rules: dict[str, Rule]
    batch: int = eqx.field(static=True, default=16)
    judged: int = eqx.field(static=True, default=16)
    steps: int = eqx.field(static=True, default=1)

    def start(self, *, key: PRNGKeyArray) -> Contest:
        del key
        leaves = {CLASSIFIER: pick(self.classifier), GENERATOR: pick(self.generator)}
        return Contest({name: enter([strong(x) for x in each], self.rules[name]) for name, each in leaves.items()})

    def update(self, state: Contest, data: Tasks, *, key: PRNGKeyArray) -> tuple[Contest, Metrics]:
        keys = fork(key, self.batch)

        def on_all(one):
            def loss(leaves):
                return jax.tree.map(jnp.mean, jax.vmap(lambda key: one(self._with(leaves), data, key))(keys))

            return loss

        players, metrics = move_all(
            state.players, self.rules, {CLASSIFIER: on_all(_classify), GENERATOR: on_all(_deceive)}
        )
        return Contest(players), metrics

    def step(self, state: Contest, data: Tasks, *, key: PRNGKeyArray) -> Contest:
        return self.update(state, data, key=key)[0]

    def loss(self, state: Contest, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        learner = self.result(state)

        def one(key):
            key_task, key_run, key_query = fork(key, 3)
            task = data.sample(key_task)
            return learner.loss(run(learner, task.support, key=key_run), task.query, key=key_query)

        return jax.tree.map(jnp.mean, jax.vmap(one)(fork(key, self.judged)))

    def result(self, state: Contest) -> Descend:
        """The classifier of tasks, with the generator that it adapts beside."""
        return self._with({name: player.leaves for name, player in state.players.items()})

    def _with(self, leaves: dict[str, list[Array]]) -> Descend:
        classifier = put(self.classifier, leaves[CLASSIFIER])
        make = Constant(put(self.generator, leaves[GENERATOR]))
        return eqx.tree_at(lambda classifier: classifier.objective.make, classifier, make)

    @property
    def height(self) -> int:
        return self.classifier.height + 1


def _adapted(classifier: Descend, data: Tasks, key: PRNGKeyArray) -> tuple[WithFakes, Examples, Float[Array, "n ..."]]:
    """The classifier after a task's support set, the query, and fakes that it has not seen."""
    key_task, key_run, key_fakes = fork(key, 3)
    task = data.sample(key_task)
    objective = classifier.result(run(classifier, task.support, key=key_run))
    return objective, task.query, value(objective.make)(task.query.x, key=key_fakes)


def _classify(classifier: Descend, data: Tasks, key: PRNGKeyArray) -> Scored:
    objective, query, _ = _adapted(classifier, data, key)
    loss, metrics = objective.loss(query, key=fork(key, 4)[3])
    return loss, {**metrics, "loss": loss}


def _deceive(classifier: Descend, data: Tasks, key: PRNGKeyArray) -> Scored:
    objective, _, fakes = _adapted(classifier, data, key)
    net = jax.lax.stop_gradient(objective.net)
    logits = net(fakes)
    real = jax.nn.logsumexp(logits[:, :-1], axis=1) - jax.nn.logsumexp(logits, axis=1)
    return -jnp.mean(real), {"taken for real": jnp.mean(jnp.exp(real))}


def meta_gan_few_shot(
    net: Any,
    rule: Rule,
    inputs: int,
    rules: dict[str, Rule],
    *,
    key: PRNGKeyArray,
    steps: int = 3,
    weight: float = 1.0,
    **options: Any,
) -> MetaGANFewShot:
    """A fresh `MetaGANFewShot`.

    Args:
        net: gives a logit for each class and one for fakes.
        rule: how the classifier moves on a task, with rates for the leaves of `net`.
        inputs: numbers in one input.
        rules: for "classifier" and "generator".
        steps: on a task.
        weight: of the fakes in the classifier's loss.
        options: other fields of `MetaGANFewShot`.
    """
    make = Imitator(inputs, key=key)
    number = Constant(jnp.asarray(weight, jnp.result_type(float)))
    classifier = Descend(WithFakes(net, Constant(make), number), rule, steps)
    return MetaGANFewShot(classifier, make, rules, **options)
