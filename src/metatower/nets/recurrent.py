"""Memories: networks that take one input after another, with `start`, `__call__` for one input, `over` for many.

What one says is a function of all inputs so far, held in a memory of fixed shape. None knows of batches: `jax.vmap` it.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from metatower.nets.mlp import Linear


class Memory(eqx.Module):
    """What every memory does.

    Its field or property `outputs` is the number of units it says something with.
    """

    outputs: eqx.AbstractVar[int]

    @abstractmethod
    def start(self) -> PyTree:
        """The memory before the first input."""

    @abstractmethod
    def __call__(self, memory: PyTree, x: Float[Array, " inputs"]) -> tuple[PyTree, Float[Array, " outputs"]]:
        """The memory after one more input, and what is said then."""

    def over(self, memory: PyTree, x: Float[Array, "time inputs"]) -> tuple[PyTree, Float[Array, "time outputs"]]:
        """The memory after these inputs, and what was said after each: as `__call__` gives them one by one."""
        return jax.lax.scan(lambda memory, x: self(memory, x), memory, x)


class GRU(Memory):
    """Gated recurrent unit (Cho et al. 2014, https://arxiv.org/abs/1406.1078).

        r, z = σ(x Wᵣ + h Uᵣ + bᵣ), σ(x W_z + h U_z + b_z)
        n = tanh(x Wₙ + bₙ + r ∘ (h Uₙ + cₙ))
        h ← n + z ∘ (h − n),    y = h

    Differs from the paper in: the reset gate acts after the product with Uₙ, as in cuDNN. U starts orthogonal.
    """

    inside: Float[Array, "inputs gates"]
    across: Float[Array, "outputs gates"]
    bias: Float[Array, " gates"]
    candidate: Float[Array, " outputs"]
    outputs: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        key_inside, *keys = jax.random.split(key, 4)
        bound = 1 / inputs**0.5
        self.inside = jax.random.uniform(key_inside, (inputs, 3 * outputs), minval=-bound, maxval=bound)
        orthogonal = jax.nn.initializers.orthogonal()
        self.across = jnp.concatenate([orthogonal(k, (outputs, outputs)) for k in keys], axis=1)
        self.bias = jnp.zeros(3 * outputs)
        self.candidate = jnp.zeros(outputs)
        self.outputs = outputs

    def start(self) -> Float[Array, " outputs"]:
        return jnp.zeros(self.outputs, self.across.dtype)

    def __call__(self, memory, x):
        # gate by gate, so that nothing that was computed has to be sliced
        new, old = (jnp.split(part, 3) for part in (x @ self.inside + self.bias, memory @ self.across))
        reset, keep = (jax.nn.sigmoid(n + o) for n, o in zip(new[:2], old[:2], strict=True))
        candidate = jnp.tanh(new[2] + reset * (old[2] + self.candidate))
        memory = candidate + keep * (memory - candidate)
        return memory, memory


class Gated(eqx.Module):
    """One layer of `MinGRU`."""

    gates: Linear
    out: Linear

    def candidates(self, x: Float[Array, "time inputs"]) -> tuple[Float[Array, "time n"], Float[Array, "time n"]]:
        """How much of the old memory stays, and what is added to it."""
        gate, new = jnp.split(self.gates(_normalised(x)), 2, axis=-1)
        return jax.nn.sigmoid(-gate), jax.nn.sigmoid(gate) * new


class MinGRU(Memory):
    """Minimal gated recurrent units: a linear recurrence whose gates see the input alone.

    Feng et al. 2024, "Were RNNs All We Needed?", https://arxiv.org/abs/2410.01201, section 3.1, in residual layers:

        z = σ(x̂ W_z + b_z),  h ← (1 − z) ∘ h + z ∘ (x̂ W_h + b_h),  x ← x + gelu(h) W_o + b_o

    with x̂ the layer-normalised x. `over` takes all inputs at once by an associative scan, of depth log(time).

    Differs from the paper in: h̃ is not forced to be positive, as no logarithm is taken; no convolution, no dropout.
    """

    enter: Linear
    layers: list[Gated]
    outputs: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray, layers: int = 2):
        key, *keys = jax.random.split(key, 2 * layers + 1)
        self.enter = Linear(inputs, outputs, key=key)
        pairs = zip(keys[::2], keys[1::2], strict=True)
        self.layers = [Gated(Linear(outputs, 2 * outputs, key=k), Linear(outputs, outputs, key=o)) for k, o in pairs]
        self.outputs = outputs

    def start(self) -> Float[Array, "layers outputs"]:
        return jnp.zeros((len(self.layers), self.outputs), self.enter.weight.dtype)

    def __call__(self, memory, x):
        memory, y = self.over(memory, x[None])
        return memory, y[0]

    def over(self, memory, x):
        x, last = self.enter(x), []
        for layer, before in zip(self.layers, memory, strict=True):
            keep, new = layer.candidates(x)
            kept, held = jax.lax.associative_scan(_one_after_the_other, (keep, new))
            held = held + kept * before
            x = x + layer.out(jax.nn.gelu(held))
            last.append(held[-1])
        return jnp.stack(last), x


def _one_after_the_other(first, second):
    (keep_1, new_1), (keep_2, new_2) = first, second
    return keep_1 * keep_2, keep_2 * new_1 + new_2


PIECE = 64
"""Inputs that `LinearAttention` takes at once."""


class Stored(eqx.Module):
    """What `LinearAttention` remembers, layer by layer."""

    last: Float[Array, "layers outputs"]
    """The input before."""
    store: Float[Array, "layers heads keys values"]
    """Sums of what was written, at each key; the last value counts how much was."""


class Associative(eqx.Module):
    """One layer of `LinearAttention`."""

    address: Linear
    values: Linear
    gates: Linear
    out: Linear
    wide: Linear
    narrow: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, size: int, heads: int, *, key: PRNGKeyArray):
        each = -(-size // heads)
        keys = iter(jax.random.split(key, 6))
        # sharp enough from the start to tell situations apart
        self.address = Linear(size, heads * each, key=next(keys), scale=5.0)
        self.values, self.gates = (Linear(2 * size, heads * each, key=next(keys), scale=2.0) for _ in range(2))
        self.out = Linear(heads * (each + 1), size, key=next(keys))
        self.wide, self.narrow = Linear(size, 2 * size, key=next(keys)), Linear(2 * size, size, key=next(keys))
        self.heads = heads

    def __call__(self, last, store, x: Float[Array, "time outputs"]):
        whole = jnp.concatenate([last[None], x])
        address = jax.nn.softmax(self.address(_normalised(whole)).reshape(len(whole), self.heads, -1))
        key, query = address[:-1], address[1:]
        both = jnp.concatenate([whole[1:], whole[:-1]], axis=-1)
        value = (self.values(both) * self.gates(both)).reshape(len(x), self.heads, -1)
        value = jnp.concatenate([value, jnp.ones_like(value[..., :1])], axis=-1)
        match = jnp.where(jnp.tri(len(x), dtype=bool), jnp.einsum("thk,shk->hts", query, key), 0.0)
        read = jnp.einsum("hts,shv->thv", match, value) + jnp.einsum("thk,hkv->thv", query, store)
        x = x + self.out((read / (1 + read[..., -1:])).reshape(len(x), -1))
        x = x + self.narrow(jax.nn.gelu(self.wide(_normalised(x))))
        return x, store + jnp.einsum("shk,shv->hkv", key, value)


class LinearAttention(Memory):
    """An associative memory: what follows a situation is written under it, and read in situations like it.

    Linear attention (Katharopoulos et al. 2020, "Transformers are RNNs", https://arxiv.org/abs/2006.16236, equations
    10 to 12; the "fast weights" of Schmidhuber 1992) in residual layers with a layer of gelu units each:

        k, q = softmax(W x̂ₜ₋₁), softmax(W x̂ₜ),    v = (W_v c) ∘ (W_g c),    c = [xₜ, xₜ₋₁]
        S ← S + k [v, 1]ᵀ
        y = W_o (qᵀS / (1 + qᵀS₁))

    with x̂ the layer-normalised x and S₁ the column that counts. So y is a mean of what was written at keys like q,
    shrunk towards 0 while that is little: of a number that was seen with unit noise it is the posterior mean under a
    standard normal prior. `over` takes pieces of the inputs at once, by products with a matrix of time by time.

    Differs from the paper in: φ is the softmax; one is added to the denominator; keys are the queries of the input
    before, so that a consequence is found by its cause from the start; values are gated.
    """

    enter: Linear
    layers: list[Associative]
    outputs: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray, layers: int = 2, heads: int = 4):
        key, *keys = jax.random.split(key, layers + 1)
        self.enter = Linear(inputs, outputs, key=key, scale=3.0)
        self.layers = [Associative(outputs, heads, key=k) for k in keys]
        self.outputs = outputs

    def start(self) -> Stored:
        kind, layer = self.enter.weight.dtype, self.layers[0]
        each = layer.address.weight.shape[1] // layer.heads
        last = jnp.zeros((len(self.layers), self.outputs), kind)
        return Stored(last, jnp.zeros((len(self.layers), layer.heads, each, each + 1), kind))

    def __call__(self, memory, x):
        memory, y = self._at_once(memory, x[None])
        return memory, y[0]

    def over(self, memory, x):
        pieces, rest = divmod(len(x), PIECE)
        split = x[: pieces * PIECE].reshape(pieces, PIECE, x.shape[-1])
        memory, y = jax.lax.scan(lambda memory, x: self._at_once(memory, x), memory, split)
        y = y.reshape(-1, self.outputs)
        if rest:
            memory, z = self._at_once(memory, x[pieces * PIECE :])
            y = jnp.concatenate([y, z])
        return memory, y

    def _at_once(self, memory, x):
        x, last, stores = self.enter(x), [], []
        for layer, before, store in zip(self.layers, memory.last, memory.store, strict=True):
            last.append(x[-1])
            x, store = layer(before, store, x)
            stores.append(store)
        return Stored(jnp.stack(last), jnp.stack(stores)), x


def _normalised(x: Float[Array, "time n"]) -> Float[Array, "time n"]:
    mean, variance = jnp.mean(x, axis=-1, keepdims=True), jnp.var(x, axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


class Forgetful(Memory):
    """No memory: a layer of tanh units that sees the last input only. What a memory is compared with."""

    layer: Linear
    outputs: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        self.layer = Linear(inputs, outputs, key=key)
        self.outputs = outputs

    def start(self) -> Float[Array, " 0"]:
        return jnp.zeros(0, self.layer.weight.dtype)

    def __call__(self, memory, x):
        return memory, jnp.tanh(self.layer(x[None])[0])

    def over(self, memory, x):
        return memory, jnp.tanh(self.layer(x))


MEMORIES: dict[str, Callable[..., Memory]] = {
    "gru": GRU,
    "mingru": MinGRU,
    "attention": LinearAttention,
    "none": Forgetful,
}
"""Memories by name; all are made as `GRU(inputs, outputs, key=key)`."""
