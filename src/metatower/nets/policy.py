"""Policies: distributions over actions, and the network with a memory that gives them."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metatower.nets.mlp import Linear
from metatower.nets.recurrent import MEMORIES, Memory

LOG_ROOT_TAU = 0.9189385332046727
"""½ log 2π."""


class Categorical(eqx.Module):
    """A distribution over numbered actions."""

    logits: Float[Array, "*batch n"]

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*batch"]:
        """One action."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> Int[Array, "*batch"]:
        """The likeliest action."""
        return jnp.argmax(self.logits, axis=-1)

    def log_probabilities(self) -> Float[Array, "*batch n"]:
        """Of every action, in nats."""
        return jax.nn.log_softmax(self.logits)

    def log_probability(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Of this action, in nats."""
        picked = jnp.arange(self.logits.shape[-1]) == action[..., None]  # cheaper to differentiate than a gather
        return jnp.sum(jnp.where(picked, jax.nn.log_softmax(self.logits), 0.0), axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """In nats."""
        logs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(logs) * logs, axis=-1)


class Gaussian(eqx.Module):
    """Independent normal actions of each dimension."""

    mean: Float[Array, "*batch n"]
    log_scale: Float[Array, "*batch n"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*batch n"]:
        """One action, which no gradient goes through."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return jax.lax.stop_gradient(self.mean + jnp.exp(self.log_scale) * noise)

    def mode(self) -> Float[Array, "*batch n"]:
        """The likeliest action."""
        return self.mean

    def log_probability(self, action: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """The logarithm of the density at this action."""
        z = (action - self.mean) * jnp.exp(-self.log_scale)
        return jnp.sum(-0.5 * z**2 - self.log_scale - LOG_ROOT_TAU, axis=-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """In nats."""
        return jnp.sum(jnp.broadcast_to(self.log_scale, self.mean.shape) + LOG_ROOT_TAU + 0.5, axis=-1)


Distribution = Categorical | Gaussian


class Head(eqx.Module):
    """Turns features into a distribution over actions: the logits, or the mean beside a learned scale per dimension.

    The last layer starts small, so that all actions are about equally likely at first, whatever the features. The mean
    is counted in units of the scale to begin with, so that one step size suits actions of any size.
    """

    linear: Linear
    log_scale: Float[Array, " n"] | None
    unit: float = eqx.field(static=True)

    def __init__(self, inputs: int, actions: int, *, key: PRNGKeyArray, discrete: bool, scale: float = 0.5):
        self.linear = Linear(inputs, actions, key=key, scale=0.01)
        self.log_scale = None if discrete else jnp.full(actions, jnp.log(scale))
        self.unit = scale

    def __call__(self, x: Float[Array, "n inputs"]) -> Distribution:
        y = self.linear(x)
        if self.log_scale is None:
            return Categorical(y)
        return Gaussian(self.unit * y, jnp.broadcast_to(self.log_scale, y.shape))


class ActorCritic(eqx.Module):
    """A memory with two heads: what to do, and what reward to expect.

    Args:
        inputs: numbers in one input.
        actions: how many actions there are, or how many numbers one has.
        discrete: whether actions are numbered.
        size: units of the memory.
        memory: "gru", "mingru", "attention", or "none" for a network that sees the last input only.
        hidden: tanh units of a layer between memory and heads; none if 0.
        scale: the standard deviation of continuous actions to begin with.
    """

    memory: Memory
    hidden: Linear | None
    actor: Head
    critic: Linear

    def __init__(
        self,
        inputs: int,
        actions: int,
        *,
        key: PRNGKeyArray,
        discrete: bool = True,
        size: int = 64,
        memory: str = "gru",
        hidden: int = 0,
        scale: float = 0.5,
    ):
        if memory not in MEMORIES:
            raise ValueError(f"ActorCritic: expected memory as one of {', '.join(MEMORIES)}, got {memory!r}.")
        key_memory, key_hidden, key_actor, key_critic = jax.random.split(key, 4)
        self.memory = MEMORIES[memory](inputs, size, key=key_memory)
        self.hidden = Linear(size, hidden, key=key_hidden) if hidden else None
        features = hidden or size
        self.actor = Head(features, actions, key=key_actor, discrete=discrete, scale=scale)
        self.critic = Linear(features, 1, key=key_critic, scale=0.1)

    def start(self) -> PyTree:
        """The memory before the first input."""
        return self.memory.start()

    def __call__(self, memory: PyTree, x: Float[Array, " inputs"]) -> tuple[PyTree, Distribution, Float[Array, ""]]:
        """The memory after one more input, what to do then, and the value."""
        memory, y = self.memory(memory, x)
        distribution, value = self._heads(y[None])
        return memory, jax.tree.map(lambda leaf: leaf[0], distribution), value[0]

    def over(self, x: Float[Array, "time inputs"]) -> tuple[Distribution, Float[Array, " time"]]:
        """What to do and the value after each of these inputs, from a fresh memory."""
        return self._heads(self.memory.over(self.start(), x)[1])

    def _heads(self, y):
        y = y if self.hidden is None else jnp.tanh(self.hidden(y))
        return self.actor(y), self.critic(y)[:, 0]


class Policy(eqx.Module):
    """A distribution over actions from an observation alone, by tanh layers; takes batches.

    Args:
        sizes: units per layer, from the numbers in an observation to the last hidden layer: `(2, 64, 64)`.
        actions: how many actions there are, or how many numbers one has.
        discrete: whether actions are numbered.
        scale: the standard deviation of continuous actions to begin with.
    """

    layers: list[Linear]
    head: Head

    def __init__(
        self, sizes: Sequence[int], actions: int, *, key: PRNGKeyArray, discrete: bool = True, scale: float = 0.5
    ):
        key_head, *keys = jax.random.split(key, len(sizes))
        shapes = zip(sizes[:-1], sizes[1:], keys, strict=True)
        self.layers = [Linear(i, o, key=k, scale=3**0.5) for i, o, k in shapes]  # variance 1 / inputs
        self.head = Head(sizes[-1], actions, key=key_head, discrete=discrete, scale=scale)

    def __call__(self, x: Float[Array, "n ..."]) -> Distribution:
        x = x.reshape(len(x), -1)
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.head(x)
