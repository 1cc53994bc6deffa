"""Training a `MetaGAN`: a generator that wants its networks to adapt fast, against a discriminator of what they do."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import (
    Constant,
    Descend,
    Expected,
    Learner,
    Metrics,
    Rule,
    Scored,
    Task,
    Tasks,
    pick,
    put,
    run,
    value,
)
from metatower.core.keys import fork
from metatower.core.leaves import strong
from metatower.core.shares import mean_over_devices, own_share
from metatower.learners.elites import Bank, Elite, context_of, empty
from metatower.learners.meta_gan import MetaGAN, of_kind
from metatower.learners.players import Player, enter, move_all
from metatower.nets.discriminator import Discriminator, fingerprint, gradient_penalty, relativistic
from metatower.nets.supervised import Examples, Supervised
from metatower.rules import adam, clip

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
LONG_RATE = 5e-3
"""Adam's step size for elites."""


class Match(eqx.Module):
    """The state of a `MetaGANTrainer`."""

    players: dict[str, Player]
    elites: Bank
    count: Int[Array, ""]


class Terms(eqx.Module):
    """What counts how much in the generator's loss; numbers, so that one compiled program serves all."""

    after: Float[Array, "steps_and_1"]
    """The query loss after 0, 1, ... inner steps."""
    adversarial: Float[Array, ""]
    """λ_a, reached from 0 in the first `warm` steps."""
    diversity: Float[Array, ""]
    """λ_d, of the squared distance of two draws on a query (of their probabilities, where targets are labels); below ¼
    their squared errors and this stay above zero together."""
    cost: Float[Array, ""]
    """λ_c, of the share of the super-net that is used."""
    usage: Float[Array, ""]
    """Of the entropy of all operations that a batch uses, which keeps one from being forgotten early."""
    penalty: Float[Array, ""]
    """γ of R1 and R2, in the discriminator's loss."""
    noise: Float[Array, ""]
    """Standard deviation of what is added to fingerprints."""


class Times(NamedTuple):
    """Numbers of steps in which something changes; arrays, so that trainings of any length share their programs."""

    warm: Int[Array, ""]
    """In which λ_a rises from 0."""
    cool: Int[Array, ""]
    """In which the temperature of the gates falls from 1 to 0.3."""
    explore: Int[Array, ""]
    """In which the share of random structures falls from 1 to 0."""


class Gates(NamedTuple):
    """How structures are drawn at this point of the training."""

    temperature: Float[Array, ""]
    random: Float[Array, ""]
    """The chance that the operations are random; none if not above 0."""


class MetaGANTrainer(Learner):
    """Trains a `MetaGAN` on a family of distributions: storey 2, with two players that move at the same time.

    For each of `distributions` the generator reads `context` tasks and makes two draws. Its loss is

        Σ_n after_n · query loss after n inner steps  −  λ_d · squared distance of the draws  +  λ_c · cost
            −  usage · entropy of operations  +  λ_a · softplus(D(elite) − D(generated))

    with tasks of the pool that it did not read. Operations are drawn; with `credit` of "score" their gradient is that
    of REINFORCE, each draw being the baseline of the other (Kool, van Hoof & Welling 2019), on (L₁ − L₂) / (L₁ + L₂),
    which no single distribution decides; else that of a softmax in their place (straight-through). In the first
    `explore` steps some draws take operations at random, ever fewer, so that weights for all of them are learned before
    one is chosen. The discriminator's loss is softplus(D(generated) − D(elite)), with R1 and
    R2. It sees *fingerprints* of networks (`nets.discriminator`), never weights: of an elite, which was adapted to a
    task for `long` steps of Adam, and of what the generator makes for the same distribution and adapts to the same
    task for one step. So it asks whether a network after one step does what one does that was trained for hundreds,
    and to fool it is to adapt fast. Every `every` steps `fresh` elites enter a bank, first in, first out: for each a
    task is learned from two structures, the generator's and a random one, and the better is kept.

    Its data is a family: a `Tasks` whose tasks are pairs of `Tasks`. The host loop trains it as any top storey.
    "Generative Modeling of Weights" (Zeng et al. 2025) found generators trained on weights to repeat
    them; so nothing is learned from weights here, and `evaluation.generated.audit` measures repetition.

    Args:
        learner: what is trained, with all its leaves.
        discriminator: the other player.
        rules: how each player moves, by "generator" and "discriminator".
        terms: weights in the losses (`Constant` of `Terms`).
        probes: inputs at which fingerprints look (`Constant`).
        like: a task, whose shapes say what the bank has to hold (`Constant`).
        distributions, tasks, context: per step; tasks to be judged on, and to be read, of each.
        pairs: elites and generated networks that the discriminator compares per step.
        bank, fresh, every, long: elites in the bank; how many enter, after how many steps; Adam steps for each.
        times: when what changes in the course of the training (`Constant` of `Times`).
        credit: how operations are credited, "score" or "straight-through".
        shared: the mesh axis over which distributions and pairs are spread; set by `metatower.core.sharding`.
    """

    learner: MetaGAN
    discriminator: Discriminator
    rules: dict[str, Rule]
    terms: Constant
    times: Constant
    probes: Constant
    like: Constant
    distributions: int = eqx.field(static=True, default=8)
    tasks: int = eqx.field(static=True, default=4)
    context: int = eqx.field(static=True, default=32)
    pairs: int = eqx.field(static=True, default=8)
    bank: int = eqx.field(static=True, default=256)
    fresh: int = eqx.field(static=True, default=4)
    every: int = eqx.field(static=True, default=8)
    long: int = eqx.field(static=True, default=100)
    credit: Literal["score", "straight-through"] = eqx.field(static=True, default="straight-through")
    steps: int = eqx.field(static=True, default=1)
    shared: str | None = eqx.field(static=True, default=None)

    def start(self, *, key: PRNGKeyArray) -> Match:
        del key
        leaves = {GENERATOR: pick(self.learner), DISCRIMINATOR: pick(self.discriminator)}
        players = {name: enter([strong(x) for x in each], self.rules[name]) for name, each in leaves.items()}
        task, net = value(self.like), self.learner.base.objective.net
        *weights, rates = [strong(leaf) for leaf in pick(self.learner.base)]
        tasks = jax.tree.map(lambda x: jnp.zeros((self.context, *x.shape), x.dtype), task)
        return Match(
            players,
            empty(Elite(weights, value(net.structure), rates, task, tasks), self.bank),
            jnp.zeros((), jnp.int32),
        )

    def update(self, state: Match, data: Tasks, *, key: PRNGKeyArray) -> tuple[Match, Metrics]:
        key_elites, key_pairs, key_tasks = fork(key, 3)
        learner = self.result(state)
        elites = jax.lax.cond(
            state.count % self.every == 0,
            lambda elites: elites.put(self._elites(learner, data, key_elites)),
            lambda elites: elites,
            state.elites,
        )
        keys_pair, keys_task = (
            own_share(fork(k, n), self.shared) for k, n in ((key_pairs, self.pairs), (key_tasks, self.distributions))
        )
        drawn = jax.vmap(elites.draw)(keys_pair)
        real = jax.vmap(self._real)(drawn, keys_pair)
        times: Times = value(self.times)
        cooled = jnp.minimum(1.0, state.count / times.cool)
        random = jnp.where(times.explore > 0, 1 - state.count / jnp.maximum(times.explore, 1), 0.0)
        gates = Gates(1 - 0.7 * cooled, random)

        def generator(leaves):
            learner, judge = put(self.learner, leaves[GENERATOR]), put(self.discriminator, leaves[DISCRIMINATOR])
            return self._generator_loss(learner, judge, (drawn, real, keys_pair), data, keys_task, state.count, gates)

        def discriminator(leaves):
            learner, judge = put(self.learner, leaves[GENERATOR]), put(self.discriminator, leaves[DISCRIMINATOR])
            fake, context = jax.vmap(lambda elite, key: self._fake(learner, elite, key, gates))(drawn, keys_pair)
            says = jax.vmap(judge)
            loss = relativistic(says(real, context), says(fake, context))
            penalty = gradient_penalty(judge, real, context) + gradient_penalty(judge, fake, context)
            told = jnp.mean(says(real, context) > says(fake, context))
            return loss + value(self.terms).penalty * penalty, {"elites told apart": told, "penalty": penalty}

        losses: dict[str, Any] = {GENERATOR: generator, DISCRIMINATOR: discriminator}
        players, metrics = move_all(state.players, self.rules, losses, self.shared)
        return Match(players, elites, state.count + 1), metrics

    def step(self, state: Match, data: Tasks, *, key: PRNGKeyArray) -> Match:
        return self.update(state, data, key=key)[0]

    def loss(self, state: Match, data: Tasks, *, key: PRNGKeyArray) -> Scored:
        return Expected(self.result(state), self.distributions).loss(data, key=key)

    def result(self, state: Match) -> MetaGAN:
        """The learner of distributions as far as it is trained."""
        return put(self.learner, state.players[GENERATOR].leaves)

    def _generator_loss(self, learner, judge, pairs, data, keys, count, gates) -> Scored:
        terms: Terms = value(self.terms)
        drawn, real, keys_pair = pairs
        losses, distance, cost, ops, credit = jax.vmap(lambda key: self._played(learner, data, key, gates))(keys)
        usage = mean_over_devices(jnp.mean(ops, axis=0), self.shared)
        entropy = -jnp.mean(jnp.sum(usage * jnp.log(usage + 1e-9), axis=-1))
        fake, context = jax.vmap(lambda elite, key: self._fake(learner, elite, key, gates))(drawn, keys_pair)
        says = jax.vmap(judge)
        adversarial = relativistic(says(fake, context), says(real, context))
        after, distance, cost = jnp.mean(losses, axis=0), jnp.mean(distance), jnp.mean(cost)
        loss = after @ terms.after - terms.diversity * distance + terms.cost * cost - terms.usage * entropy
        loss += terms.adversarial * jnp.minimum(1.0, count / value(self.times).warm) * adversarial
        credit = jnp.mean(credit)
        loss += credit - jax.lax.stop_gradient(credit)
        metrics = {"loss": after[-1], "loss after 1 step": after[min(1, len(after) - 1)], "loss before": after[0]}
        return loss, {**metrics, "distance": distance, "cost": cost, "entropy": entropy, "adversarial": adversarial}

    def _played(self, learner: MetaGAN, data: Tasks, key: PRNGKeyArray, gates: Gates):
        """Query losses `[steps + 1]`, squared distance of draws, cost, probabilities of operations and their credit."""
        key_pair, key_read, key_shown, key_draws, key_tasks, key_adapt = fork(key, 6)
        pair = data.sample(key_pair)
        read = jax.vmap(lambda k: learner.encode(pair.support.sample(k)))(fork(key_read, self.context))
        # now and then it has read less, or nothing at all, so that the beginning of a run is learned, too
        chance = 8 * jax.random.uniform(key_shown)
        shown = jnp.where(chance < 1, jnp.floor(chance * self.context), self.context)
        weight = (jnp.arange(self.context) < shown).astype(read.dtype)
        context = learner.context(weight @ read, shown)

        def draw(key):
            phi, said, free = self._drawn(learner, context, key, gates)

            def on(key):
                task = pair.query.sample(key)
                start = phi.start(key=key_adapt)

                def body(state, key):
                    state = phi.step(state, task.support, key=key)
                    return state, phi.loss(state, task.query, key=key)[0]

                end, losses = jax.lax.scan(body, start, fork(key_adapt, phi.steps))
                first = phi.loss(start, task.query, key=key_adapt)[0]
                outputs = phi.result(end).net(task.query.x)
                if jnp.issubdtype(task.query.y.dtype, jnp.integer):
                    # the loss of logits grows more slowly than their squared distance: what is said, not how loudly
                    outputs = jax.nn.softmax(outputs)
                return jnp.concatenate([first[None], losses]), outputs

            losses, outputs = jax.vmap(on)(fork(key_tasks, self.tasks))
            chosen = jax.lax.stop_gradient(said.structure.ops)
            likely = free * jnp.sum(chosen * jax.nn.log_softmax(said.op_logits))
            means = jnp.mean(losses, axis=0), outputs, phi.objective.net.cost()
            return *means, jax.nn.softmax(said.op_logits), likely

        losses, outputs, cost, ops, likely = jax.vmap(draw)(fork(key_draws, 2))
        distance = jnp.mean((outputs[0] - outputs[1]) ** 2)
        ended = jax.lax.stop_gradient(losses @ value(self.terms).after)
        better = (ended - ended[::-1]) / (jnp.sum(ended) + 1e-9)
        credit = jnp.mean(better * likely) if self.credit == "score" else jnp.zeros(())
        return jnp.mean(losses, axis=0), distance, jnp.mean(cost), jnp.mean(ops, axis=0), credit

    def _drawn(self, learner: MetaGAN, context: Array, key: PRNGKeyArray, gates: Gates):
        """A generated learner, what was said of it, and 1 if its structure is the generator's own, else 0."""
        key_z, key_gates, key_explore = fork(key, 3)
        z = jax.random.normal(key_z, (learner.generator.chance,), context.dtype)
        own = value(learner.structure).kind
        lost = own[0] * (jax.random.uniform(key_explore) < gates.random)
        learner = of_kind(learner, jnp.where(lost > 0, jnp.array([0.0, 0.0, 1.0]), own))
        straight = self.credit == "straight-through"
        phi, said = learner.generate(z, context, temperature=gates.temperature, key=key_gates, straight=straight)
        return phi, said, own[0] * (1 - lost)

    def _fake(self, learner: MetaGAN, elite: Elite, key: PRNGKeyArray, gates: Gates) -> tuple[Array, Array]:
        """The fingerprint of a generated network after one step on an elite's task, and the context."""
        key_draw, key_noise, _ = fork(key, 3)
        context = context_of(learner, elite.context)
        phi = dataclasses.replace(self._drawn(learner, context, key_draw, gates)[0], steps=1)
        adapted = phi.result(run(phi, elite.task.support, key=key_draw))
        return self._seen(adapted, elite, key_noise), jax.lax.stop_gradient(context)

    def _real(self, elite: Elite, key: PRNGKeyArray) -> Float[Array, " fingerprint"]:
        return self._seen(solution(self.learner.base.objective, elite), elite, fork(key, 3)[2])

    def _seen(self, objective: Supervised, elite: Elite, key: PRNGKeyArray) -> Float[Array, " fingerprint"]:
        seen = fingerprint(objective, elite.task.support, value(self.probes))
        return seen + value(self.terms).noise * jax.random.normal(key, seen.shape)

    def _elites(self, learner: MetaGAN, data: Tasks, key: PRNGKeyArray) -> Elite:
        """Fresh solutions, stacked."""
        own = value(learner.structure)
        kinds = jnp.stack([own.kind, jnp.where(own.kind[1] > 0, own.kind, jnp.array([0.0, 0.0, 1.0]))])

        def one(key):
            key_pair, key_read, key_task, key_z, key_run = fork(key, 5)
            pair = data.sample(key_pair)
            tasks = jax.vmap(pair.support.sample)(fork(key_read, self.context))
            task, context = pair.query.sample(key_task), context_of(learner, tasks)
            z = jax.random.normal(key_z, (learner.generator.chance,), context.dtype)

            def candidate(kind):
                phi = of_kind(learner, kind).generate(z, context)[0]
                long = Descend(phi.objective, clip(adam(LONG_RATE), 10.0), self.long)
                end = long.result(run(long, both(task), key=key_run))
                elite = Elite(pick(end), value(end.net.structure), pick(phi)[-1], task, tasks)
                return end.loss(both(task), key=key_run)[0], elite

            loss, elites = jax.vmap(candidate)(kinds)
            # not `argmin`, which would take a loss that is not a number for the better one
            return jax.tree.map(lambda x: jnp.where(loss[1] < loss[0], x[1], x[0]), elites)

        return jax.vmap(one)(fork(key, self.fresh))

    @property
    def height(self) -> int:
        return self.learner.height + 1

    @property
    def axis(self) -> str | None:
        return self.shared

    @property
    def parts(self) -> int:
        return math.gcd(self.distributions, self.pairs)

    def shared_over(self, axis: str) -> "MetaGANTrainer":
        return dataclasses.replace(self, shared=axis)


def both(task: Task) -> Examples:
    """Support and query of a task as one set, for those who may learn from all of it."""
    s, q = task.support, task.query
    join = lambda a, b: jnp.concatenate([a, b])  # noqa: E731
    weight = None if s.weight is None else join(s.weight, q.weight)
    return Examples(join(s.x, q.x), join(s.y, q.y), weight, s.ways)


def solution(objective: Supervised, elite: Elite) -> Supervised:
    """The network of an elite."""
    net: Any = objective.net
    net = net.with_structure(elite.structure)
    return put(Supervised(net, objective.criterion), elite.weights)


def meta_gan_trainer(
    learner: MetaGAN,
    family: Tasks,
    probes: Float[Array, "probe ..."],
    rules: dict[str, Rule],
    *,
    key: PRNGKeyArray,
    adversarial: float = 0.1,
    diversity: float = 0.1,
    cost: float = 0.01,
    usage: float = 0.02,
    penalty: float = 0.1,
    noise: float = 0.05,
    after: tuple[float, ...] | None = None,
    warm: int = 500,
    cool: int = 2000,
    explore: int = 0,
    **options: Any,
) -> MetaGANTrainer:
    """A fresh `MetaGANTrainer`.

    Args:
        family: of what it will be trained on; only its shapes are looked at.
        probes: inputs without labels, at which fingerprints look.
        rules: for "generator" and "discriminator".
        after: weights of the query losses after 0, 1, ... inner steps; half on the first step and half on the last if
            None.
        warm, cool, explore: see `Times`.
        others: see `Terms` and `MetaGANTrainer`.
    """
    steps = learner.base.steps
    if after is None:
        after = tuple(0.5 * (n == 1) + 0.5 * (n == steps) for n in range(steps + 1))
    if len(after) != steps + 1:
        raise ValueError(f"meta_gan_trainer: expected {steps + 1} weights in `after`, got {len(after)}.")
    shapes = eqx.filter_eval_shape(lambda family, key: family.sample(key).query.sample(key), family, key)
    task = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    numbers = (adversarial, diversity, cost, usage, penalty, noise)
    terms = Terms(jnp.asarray(after), *(jnp.asarray(x, jnp.result_type(float)) for x in numbers))
    size = len(fingerprint(learner.base.objective, task.support, probes))
    context = len(learner.encode.leave.bias) + 1
    judge = Discriminator(size, context, key=key)
    times = Times(*(jnp.asarray(steps, jnp.int32) for steps in (warm, cool, explore)))
    return MetaGANTrainer(
        learner, judge, rules, Constant(terms), Constant(times), Constant(probes), Constant(task), **options
    )
