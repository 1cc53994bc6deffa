"""What there is to ask of generated networks: which structure, how different, and whether they are only remembered."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from metatower.core import Tasks, run, value
from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.evaluation.episodes import episode_keys
from metatower.learners.elites import Bank
from metatower.learners.meta_gan import MetaGAN
from metatower.learners.meta_gan_trainer import solution

REPLICA = 0.1
"""Nearer to an elite than this share of what elites are apart, a generated network is called a replica of it."""


@dataclass(frozen=True)
class Audit:
    """How far generated networks are from the elites of their training, as functions.

    Distances are root mean squares over probe inputs; of elites from the nearest other elite.
    """

    novelty: np.ndarray
    """`[distribution]`: distance to the nearest elite, over the elites' median distance from each other."""
    elites_apart: float
    """That median."""

    @property
    def replicas(self) -> float:
        """The share of networks that repeat an elite."""
        return float(np.mean(self.novelty < REPLICA))


def audit(learner: MetaGAN, family: Tasks, probes: Array, *, episodes: int, seed: int) -> Audit:
    """Compares networks, generated for fresh distributions and adapted to a task, with the learner's elites.

    Raises:
        UserError: a learner without elites, or with fewer than two.
    """
    bank = None if learner.elites is None else value(learner.elites)
    if not isinstance(bank, Bank) or min(int(bank.count), bank.size) < 2:
        raise UserError("audit: expected a learner that keeps two elites or more of its training.")
    there = jax.tree.map(lambda x: x[: min(int(bank.count), bank.size)], bank.content)
    objective = learner.base.objective
    elites = np.asarray(eqx.filter_jit(jax.vmap(lambda elite: solution(objective, elite).net(probes)))(there))
    made = np.asarray(_outputs(learner, family, probes, episode_keys(seed, 0, episodes), 1)[1])[:, 0]
    among = _distances(elites, elites)
    np.fill_diagonal(among, np.inf)
    apart = float(np.median(among.min(axis=1)))
    return Audit(_distances(made, elites).min(axis=1) / max(apart, 1e-9), apart)


def diversity(
    learner: MetaGAN, family: Tasks, probes: Array, *, draws: int, episodes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviation of several draws for the same distribution, as generated and after adaptation to a task.

    Returns:
        Two of `[distribution]`, as root mean squares over the probes.
    """
    before, after = (np.asarray(x) for x in _outputs(learner, family, probes, episode_keys(seed, 0, episodes), draws))
    return tuple(np.sqrt(x.var(axis=1).reshape(episodes, -1).mean(axis=1)) for x in (before, after))


def structures(learner: MetaGAN, family: Tasks, *, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The structures that are generated for held-out distributions, after a run on each.

    Returns:
        Which operation in each hidden layer, `[distribution, layer]`, and the share of the super-net that is used,
        `[distribution]`.
    """

    @eqx.filter_jit
    def of_all(learner, family, keys):
        def one(key):
            key_task, key_adapt, _ = fork(key, 3)
            net = learner.result(learner.adapt(family.sample(key_task).support, key=key_adapt)).objective.net
            return jnp.argmax(value(net.structure).ops, axis=-1), net.cost()

        return jax.vmap(one)(keys)

    ops, cost = of_all(learner, family, episode_keys(seed, 0, episodes))
    return np.asarray(ops), np.asarray(cost)


@eqx.filter_jit
def _outputs(learner: Any, family: Tasks, probes: Array, keys: Key[Array, " episode"], draws: int):
    """Outputs of several draws on the probes, before and after adapting to a task: `[distribution, draw, ...]`."""

    def one(key):
        key_task, key_adapt, key_query = fork(key, 3)
        pair = family.sample(key_task)
        task = pair.query.sample(fork(fork(key_query, 1)[0], 2)[0])

        def draw(number):
            state = drawn(learner, number).adapt(pair.support, key=key_adapt)
            below = learner.result(state)
            adapted = below.result(run(below, task.support, key=key_query))
            return below.objective.net(probes), adapted.net(probes)

        return jax.vmap(draw)(jnp.arange(draws))

    return jax.vmap(one)(keys)


def drawn(learner: MetaGAN, number: Any) -> MetaGAN:
    """The same learner, whose runs have another draw of chance: one member of an ensemble."""
    return eqx.tree_at(lambda learner: learner.draw.content, learner, jnp.asarray(number, jnp.int32))


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
    return np.sqrt(np.mean((one[:, None] - other[None]) ** 2, axis=2))
