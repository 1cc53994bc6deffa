"""What an update rule is trained on: the parameters of an optimisation problem, and its loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.core import Objective, Scored

KINDS = ("quadratic", "logistic", "teacher")
"""The problems that an `Optimisee` can be; a `Problem` has the number of its kind here."""


class Problem(eqx.Module):
    """One optimisation problem: data, where its parameters start, and the scale of each of their tensors."""

    kind: Int[Array, ""]
    """Its place in `KINDS`."""
    x: Float[Array, "example number"]
    """One column for each number of the parameters; the network of "teacher" reads the first columns, its inputs."""
    y: Float[Array, " example"]
    """Targets; −1 or 1 for "logistic"."""
    start: list[Array]
    """A tensor for each tensor of the parameters, of its shape."""
    scale: Float[Array, " tensor"]
    """How far each tensor moves where its parameter moves by 1."""


class Optimisee(Objective):
    """The parameters of a `Problem`, as an optimiser sees them: three tensors φ, which start at zero.

    Moudgil et al. 2025, "Celo: Training Versatile Learned Optimizers on a Compute Diet",
    https://arxiv.org/abs/2501.12670, for tensors that are rescaled at random, lest a learned optimiser rely on their
    sizes. With θ_i = start_i + scale_i · φ_i and w all numbers of θ:

        quadratic:  ½ mean (x w − y)²
        logistic:   mean log(1 + exp(−y · x w))
        teacher:    ½ mean (tanh(x[:, :inputs] weight + bias) out − y)²

    Differs from the paper in: φ starts at zero and not at start / scale, as a learner starts before it sees data. The
    gradients are the same, and so are the runs of all rules that look at gradients only.

    Args:
        inputs: of the network.
        units: of its hidden layer.
    """

    weight: Float[Array, "inputs units"]
    bias: Float[Array, " units"]
    out: Float[Array, " units"]

    def __init__(self, inputs: int, units: int):
        if inputs < 1 or units < 1:
            raise ValueError(f"Optimisee: expected at least one input and one unit, got {inputs} and {units}.")
        self.weight, self.bias, self.out = (jnp.zeros(shape) for shape in shapes(inputs, units))

    def loss(self, data: Problem, *, key: PRNGKeyArray) -> Scored:
        del key
        count, columns = self.weight.size + self.bias.size + self.out.size, data.x.shape[-1]
        if columns != count:
            raise ValueError(
                f"Optimisee: the problem has {columns} columns and the parameters {count} numbers. Make both with the "
                "same inputs and units."
            )
        moved = zip(data.start, data.scale, (self.weight, self.bias, self.out), strict=True)
        theta = [start + scale * phi for start, scale, phi in moved]
        numbers = jnp.concatenate([jnp.ravel(each) for each in theta])
        network = predicted(theta, data.x[:, : len(self.weight)])
        output = jnp.where(data.kind == KINDS.index("teacher"), network, data.x @ numbers)
        squares, logistic = 0.5 * (output - data.y) ** 2, jax.nn.softplus(-data.y * output)
        return jnp.mean(jnp.where(data.kind == KINDS.index("logistic"), logistic, squares)), {}


def shapes(inputs: int, units: int) -> list[tuple[int, ...]]:
    """The shapes of the three tensors of an `Optimisee`."""
    return [(inputs, units), (units,), (units,)]


def predicted(theta: list[Array], x: Float[Array, "example inputs"]) -> Float[Array, " example"]:
    """What the two-layer network with these weights, biases and output weights says."""
    weight, bias, out = theta
    return jnp.tanh(x @ weight + bias) @ out
