"""A bank of long-adapted solutions, first in, first out; and what is taken from it in the place of a generator."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metatower.core import Constant, Task, pick, value
from metatower.nets.generator import Generated
from metatower.nets.super_net import Structure


class Elite(eqx.Module):
    """A network that was adapted to one task for long, and what it was adapted to."""

    weights: list[Array]
    structure: Structure
    rates: Float[Array, " leaf"]
    """Logarithms, as they were generated with the network's start."""
    task: Task
    context: Task
    """Other tasks of the same distribution, stacked."""


class Bank(eqx.Module):
    """The last so many things that were put in, stacked.

    >>> bank = empty(jnp.zeros(()), 3)
    >>> for x in range(5):
    ...     bank = bank.put(jnp.array([float(x)]))
    >>> sorted(bank.content.tolist()), int(bank.count)
    ([2.0, 3.0, 4.0], 5)
    """

    content: PyTree
    count: Int[Array, ""]
    """How many were put in, ever."""

    def put(self, items: PyTree) -> "Bank":
        """The bank with stacked items in the places of the oldest."""
        number = len(jax.tree.leaves(items)[0])
        places = (self.count + jnp.arange(number)) % self.size
        content = jax.tree.map(lambda old, new: old.at[places].set(new.astype(old.dtype)), self.content, items)
        return Bank(content, self.count + number)

    def draw(self, key: PRNGKeyArray) -> PyTree:
        """One of what is in it; nought if nothing is."""
        there = jnp.clip(self.count, 1, self.size)
        return jax.tree.map(lambda x: x[jax.random.randint(key, (), 0, there)], self.content)

    @property
    def size(self) -> int:
        """How many it can hold."""
        return len(jax.tree.leaves(self.content)[0])


def empty(like: PyTree, size: int) -> Bank:
    """A bank for so many things like this one."""
    return Bank(jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), like), jnp.zeros((), jnp.int32))


class FromElites(eqx.Module):
    """Takes networks from a bank where a generator would make them: the plainest memory, to compare with.

    "nearest" is the elite whose distribution's context is nearest, in Euclidean distance; "noise" the same with normal
    noise of `spread` times each array's root mean square; "average" the mean of the weights and rates of the `near`
    nearest, in the nearest one's structure.
    """

    elites: Constant
    """A bank of `Elite`, full."""
    contexts: Constant
    """c of each."""
    means: Constant
    """The leaves of the mean learner, which the `MetaGAN` adds."""
    how: Literal["nearest", "noise", "average"] = eqx.field(static=True, default="nearest")
    spread: Any = 0.1
    near: int = eqx.field(static=True, default=8)
    faster: Any = 1.0
    """Factor of the rates."""
    chance: int = eqx.field(static=True, default=16)

    def __call__(self, z: Array, context: Array, **unused: Any) -> Generated:
        del unused
        elites: Elite = value(self.elites)
        # the last number is how many tasks were read
        order = jnp.argsort(jnp.sum((value(self.contexts) - context)[:, :-1] ** 2, axis=1))
        nearest = order[0]
        weights = [*elites.weights, elites.rates]
        if self.how == "average":
            taken = [jnp.mean(x[order[: self.near]], axis=0) for x in weights]
        else:
            taken = [x[nearest] for x in weights]
        if self.how == "noise":
            # chance comes from z alone, as in a generator
            key = jax.random.key(jax.lax.bitcast_convert_type(z[0].astype(jnp.float32), jnp.uint32))
            keys = jax.random.split(key, len(elites.weights))
            noisy = [
                x + self.spread * jnp.sqrt(jnp.mean(x**2)) * jax.random.normal(k, x.shape)
                for x, k in zip(taken[:-1], keys, strict=True)
            ]
            taken = [*noisy, taken[-1]]
        *moved, rates = [x - mean for x, mean in zip(taken, value(self.means), strict=True)]
        structure = jax.tree.map(lambda x: x[nearest], elites.structure)
        return Generated(structure, moved, rates + jnp.log(self.faster), structure.ops)


def from_elites(learner: Any, bank: Bank, how: Literal["nearest", "noise", "average"], **options: Any) -> Any:
    """A `MetaGAN` with a bank in the place of its generator.

    Args:
        learner: reads distributions, those of the bank too.
        bank: of `Elite`.
        how, options: see `FromElites`.
    """
    number = min(int(bank.count), bank.size)
    elites: Elite = jax.tree.map(lambda x: x[:number], bank.content)
    contexts = eqx.filter_jit(jax.vmap(lambda tasks: context_of(learner, tasks)))(elites.context)
    taken = FromElites(
        Constant(elites),
        Constant(contexts),
        Constant(pick(learner.base)),
        how,
        chance=learner.generator.chance,
        **options,
    )
    return eqx.tree_at(lambda learner: learner.generator, learner, taken)


def context_of(learner: Any, tasks: Task) -> Float[Array, " context_and_1"]:
    """c of stacked tasks, as a `MetaGAN` reads them."""
    read = jax.vmap(learner.encode)(tasks)
    return learner.context(jnp.sum(read, axis=0), jnp.asarray(float(len(read))))
