"""A learner of distributions that generates, from examples, a network that adapts fast."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import (
    Constant,
    Descend,
    Expected,
    Learner,
    Objective,
    Rule,
    Scored,
    State,
    Tasks,
    pick,
    put,
    value,
)
from metatower.core.keys import fork, fork_at
from metatower.core.leaves import strong
from metatower.nets.generator import Generated, Generator, TaskEncoder
from metatower.nets.super_net import OPS, Structure, SuperNet


class Reading(eqx.Module):
    """What a `MetaGAN` knows of a distribution."""

    z: Float[Array, " chance"]
    """Drawn at the start: one draw of the generator for the whole run."""
    total: Float[Array, " context"]
    """The sum of the vectors of all tasks that were seen."""
    tasks: Float[Array, ""]
    """How many."""
    moved: list[Array]
    """How far steps of `refine` have moved what is generated; nothing without it."""
    rule: State


class Prescribed(eqx.Module):
    """Whether the structure of the networks is generated."""

    kind: Float[Array, "three"]
    """A 1 for: generated; as given; drawn uniformly."""
    ops: Float[Array, "layer op"]
    """What is given."""


class MetaGAN(Learner):
    """Learns a distribution of tasks by reading it, and generates the learner of its tasks.

    A learner of storey 1. One step samples `batch` tasks of the distribution, as one step of MAML does, and adds their
    vectors to a running mean c. The state then *is* a learner of tasks: a super-net with structure, initial weights and
    rates per layer from the generator, G(z, c), which takes `base.steps` gradient steps on a task. So K steps see as
    many tasks as K steps of MAML, and no gradient is taken on the distribution. With `refine`, each step also moves
    what is generated along MAML's meta-gradient on the same tasks.

    What is generated stays near the mean learner `base`, whose weights and rates are learned, too. The lift of this
    learner is storey 2, and so is `MetaGANTrainer`, which adds the second player. Make one with `meta_gan`.

    Args:
        base: the mean learner: a `Descend` on a `Supervised` super-net, with a `PerLeaf` of `Positive` rates.
        structure: what gates the networks: the generator, or for comparison something else.
        steps: how often it reads, K.
        batch: tasks per step.
        judged: tasks that a finished run is judged on.
        refine: a rule for steps on what is generated, or None.
        draw: which draw of z; learners that differ in it are an ensemble that reads the same tasks.
        elites: the bank of its training, kept to audit it; it has no part in learning.
    """

    base: Descend
    encode: TaskEncoder
    generator: Any
    structure: Constant
    steps: int = eqx.field(static=True, default=1)
    batch: int = eqx.field(static=True, default=8)
    judged: int = eqx.field(static=True, default=1)
    refine: Rule | None = None
    draw: Constant = eqx.field(default_factory=lambda: Constant(jnp.zeros((), jnp.int32)))
    elites: Constant | None = None

    def start(self, *, key: PRNGKeyArray) -> Reading:
        key = fork_at(key, jnp.asarray(value(self.draw)))
        z = jax.random.normal(key, (self.generator.chance,), self.encode.leave.bias.dtype)
        moved = [] if self.refine is None else [jnp.zeros_like(strong(leaf)) for leaf in pick(self.base)]
        rule = None if self.refine is None else self.refine.start(moved)
        return Reading(z, jnp.zeros_like(self.encode.leave.bias), jnp.zeros((), z.dtype), moved, rule)

    def step(self, state: Reading, data: Tasks, *, key: PRNGKeyArray) -> Reading:
        def one(key):
            return self.encode(data.sample(fork(key, 2)[0]))

        read = jnp.sum(jax.vmap(one)(fork(key, self.batch)), axis=0)
        moved, rule = state.moved, state.rule
        after = Reading(state.z, state.total + read, state.tasks + self.batch, moved, rule)
        if self.refine is None:
            return after
        learner = self.result(after)

        def loss(leaves):  # the same key, and so the tasks that were read
            return Expected(put(learner, leaves), self.batch).loss(data, key=key)[0]

        rule, moved = self.refine.step(rule, moved, jax.grad(loss)(pick(learner)))
        return Reading(state.z, after.total, after.tasks, moved, rule)

    def loss(self, state: Reading, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        return self.judge(state).loss(data, key=key)

    def judge(self, state: Reading) -> Objective:
        return Expected(self.result(state), self.judged)

    def result(self, state: Reading) -> Descend:
        """The learner of tasks that is generated from what was read."""
        learner = self.generate(state.z, self.context(state.total, state.tasks))[0]
        if not state.moved:
            return learner
        return put(learner, [leaf + far for leaf, far in zip(pick(learner), state.moved, strict=True)])

    def context(self, total: Array, tasks: Array) -> Float[Array, " context_and_1"]:
        """c: the mean vector, and how little it is to be trusted."""
        return jnp.append(total / jnp.maximum(tasks, 1.0), 1 / (1 + tasks))

    def generate(self, z: Array, context: Array, **gates: Any) -> tuple[Descend, Generated]:
        """The learner of tasks for z and c; `gates` as in `Generator.__call__`."""
        prescribed = value(self.structure)
        free, given, random = prescribed.kind
        # from z, as all chance of a run: a uniform number for each layer
        chance = jax.scipy.stats.norm.cdf(jax.lax.stop_gradient(z[: len(prescribed.ops)]))
        drawn = jax.nn.one_hot(jnp.minimum(jnp.floor(chance * len(OPS)), len(OPS) - 1).astype(int), len(OPS))
        units = value(self.base.objective.net.structure).units
        instead = Structure(given * prescribed.ops + random * drawn, jnp.ones_like(units))
        said = self.generator(z, context, instead=instead, share=1 - free, **gates)
        return generated(self.base, said), said

    @property
    def height(self) -> int:
        return self.base.height + 1


def generated(base: Descend, said: Generated) -> Descend:
    """The mean learner, moved by what a generator says, in the structure that it says."""
    leaves, weights = pick(base), len(said.weights)
    if len(leaves) != weights + 1:
        raise ValueError(
            f"MetaGAN: expected a mean learner with {weights} weights and biases and one array of log rates, got "
            f"{len(leaves)} arrays. Make it with `meta_gan`."
        )
    moved = [leaf + more for leaf, more in zip(leaves, [*said.weights, said.rates], strict=True)]
    net: SuperNet = base.objective.net
    shaped = eqx.tree_at(lambda base: base.objective.net, base, net.with_structure(said.structure))
    return put(shaped, moved)


def meta_gan(
    base: Descend,
    inputs: int,
    targets: int,
    *,
    key: PRNGKeyArray,
    chance: int = 16,
    context: int = 64,
    **options: Any,
) -> MetaGAN:
    """A fresh `MetaGAN`.

    Args:
        base: the mean learner, from which it sets out.
        inputs: numbers in one input, whatever its shape.
        targets: numbers in one target, or how many labels there can be.
        chance, context: numbers in z and c.
        options: other fields of `MetaGAN`.

    Raises:
        ValueError: a mean learner of another form.
    """
    net = getattr(getattr(base, "objective", None), "net", None)
    if not isinstance(net, SuperNet):
        raise ValueError(
            "meta_gan: expected a `Descend` on a `Supervised` super-net, such as "
            "`Descend(Supervised(super_net((1, 40, 40, 1), key=key), squared_error), sgd(rates_for(...)), steps=3)`."
        )
    sizes = [len(layer.weight) for layer in net.layers] + [net.layers[-1].weight.shape[1]]
    keys = fork(key, 2)
    ops = value(net.structure).ops
    generator = Generator(sizes, chance, context + 1, key=keys[0])
    if chance < len(ops):
        raise ValueError(f"meta_gan: expected chance of at least the {len(ops)} hidden layers, got {chance}.")
    free = Constant(Prescribed(jnp.array([1.0, 0.0, 0.0]), ops))
    encode = TaskEncoder(inputs, targets, context, key=keys[1])
    return MetaGAN(base, encode, generator, free, **options)


def prescribed(learner: MetaGAN, kind: str, ops: Array | None = None) -> MetaGAN:
    """The same learner, whose structure is "generated", "given" (as `ops`) or "random" (one for each z)."""
    kinds = ("generated", "given", "random")
    if kind not in kinds:
        raise ValueError(f"prescribed: expected one of {', '.join(kinds)}; got {kind!r}.")
    return of_kind(learner, jax.nn.one_hot(kinds.index(kind), 3), ops)


def of_kind(learner: MetaGAN, kind: Float[Array, "three"], ops: Array | None = None) -> MetaGAN:
    """`prescribed`, with the kind as a row of 0 and 1."""
    ops = value(learner.structure).ops if ops is None else ops
    return eqx.tree_at(lambda learner: learner.structure, learner, Constant(Prescribed(kind, ops)))
