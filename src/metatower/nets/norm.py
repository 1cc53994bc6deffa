"""Batch normalisation that says whose statistics it uses."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from metatower.core import Constant, value

Mode = Literal["transductive", "support", "running", "none"]
MODES: tuple[Mode, ...] = ("transductive", "support", "running", "none")


class Moments(eqx.Module):
    """Mean and variance of each channel."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]


class BatchNorm(eqx.Module):
    """Each channel to mean 0 and variance 1, then scaled and shifted (Ioffe & Szegedy 2015, algorithm 1).

    Whose mean and variance, says the mode:

    - "transductive": of the batch at hand. On a query, what is said of one image depends on the others beside it.
    - "support": of the support set, used on the query too. They travel in the learner's state.
    - "running": of many tasks of meta-training, measured by `metatower.evaluation.norms.measured`.
    - "none": nobody's; only scale and shift.

    Make one with `batch_norm(channels)`, change all of a tower with `with_norm(tower, mode)`.
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    running: Any = None
    """A `Constant` of `Moments`, once measured."""
    mode: Mode = eqx.field(static=True, default="transductive")
    epsilon: float = eqx.field(static=True, default=1e-5)

    def __check_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"BatchNorm: expected a mode of {', '.join(MODES)}; got {self.mode!r}.")

    def __call__(self, x: Float[Array, "n *space channels"]) -> Float[Array, "n *space channels"]:
        return self.normalised(x)[0]

    def normalised(
        self, x: Float[Array, "n *space channels"], weight: Float[Array, " n"] | None = None, given: Any = None
    ) -> tuple[Float[Array, "n *space channels"], Moments | None]:
        """The output, and the moments to give when other data are to be judged in the light of these.

        Args:
            weight: examples of weight 0 are padding and have no part in the statistics.
            given: the moments of the support set; used in the mode "support" only.
        """
        if self.mode == "none":
            return x * self.scale + self.shift, None
        if self.mode == "running":
            if self.running is None:
                raise ValueError(
                    "BatchNorm: the mode 'running' has no statistics yet. Measure them on training tasks with "
                    "`metatower.evaluation.norms.measured(learner, tasks)`."
                )
            moments = value(self.running)
        elif self.mode == "support" and given is not None:
            moments = given
        else:
            moments = _moments(x, weight)
        gain = self.scale * jax.lax.rsqrt(moments.variance + self.epsilon)
        return x * gain + (self.shift - moments.mean * gain), moments if self.mode == "support" else None

    def blank(self) -> Moments | None:
        """What there is to give before any data: mean 0 and variance 1."""
        still = Moments(jnp.zeros_like(self.shift), jnp.ones_like(self.scale))
        return still if self.mode == "support" else None


def batch_norm(channels: int, mode: Mode = "transductive", epsilon: float = 1e-5) -> BatchNorm:
    """A `BatchNorm` of scale 1 and shift 0."""
    return BatchNorm(jnp.ones(channels), jnp.zeros(channels), None, mode, epsilon)


def _moments(x, weight) -> Moments:
    axes = tuple(range(x.ndim - 1))
    if weight is None:
        average = lambda values: jnp.mean(values, axes)  # noqa: E731
    else:
        share = weight / jnp.maximum(jnp.sum(weight), 1e-9)
        average = lambda values: share @ jnp.mean(values, axes[1:])  # noqa: E731
    mean = average(x)
    # one pass over memory, not two; the clip only ever meets rounding errors
    return Moments(mean, jnp.maximum(average(x * x) - mean * mean, 0.0))


def forward(
    net: Callable[[Array], Array], x: Array, weight: Float[Array, " n"] | None = None, given: PyTree = None
) -> tuple[Array, PyTree]:
    """What a network says of a batch, and the statistics it would have others be judged by (None if there are none).

    A network with norms has `normalised(x, weight, given)`, which returns both; any other is just called.
    """
    normalised = getattr(net, "normalised", None)
    return (net(x), None) if normalised is None else normalised(x, weight, given)


def norms(tree: PyTree) -> list[BatchNorm]:
    """Every norm layer of a network, learner or tower, in tree order."""
    return [node for node in jax.tree.leaves(tree, is_leaf=_is_norm) if _is_norm(node)]


def with_norm(tree: Any, mode: Mode) -> Any:
    """The same network, learner or tower with every norm layer in this mode."""
    return _each_norm(tree, lambda norm, _: BatchNorm(norm.scale, norm.shift, norm.running, mode, norm.epsilon))


def with_running(tree: Any, moments: list[Moments] | None = None) -> Any:
    """The same network or learner in the mode "running", with these statistics, one for each norm layer in order.

    Without them mean 0 and variance 1 hold their place.
    """
    if moments is None:
        moments = [Moments(jnp.zeros_like(norm.shift), jnp.ones_like(norm.scale)) for norm in norms(tree)]
    return _each_norm(
        tree,
        lambda norm, i: BatchNorm(norm.scale, norm.shift, Constant(moments[i]), "running", norm.epsilon),
    )


def _each_norm(tree, change):
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_norm)
    count = iter(range(len(leaves)))
    return jax.tree.unflatten(structure, [change(x, next(count)) if _is_norm(x) else x for x in leaves])


def _is_norm(node) -> bool:
    return isinstance(node, BatchNorm)
