"""What learners share that classify by the features of a network: support in, features, a head fitted to them."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from metatower.core import Learner, Scored
from metatower.nets.norm import forward
from metatower.nets.supervised import Examples, cross_entropy


class Fitted(eqx.Module):
    """What a `FeatureLearner` knows of a task."""

    head: PyTree
    """What `fit` made of the support set."""
    ways: Bool[Array, " way"]
    """Which labels the support set has."""
    statistics: PyTree
    """Of the support set, for norms in the mode "support"."""


class FeatureLearner(Learner):
    """Classifies by features: `fit` makes a head of those of the support set, `logits` answers for those of a query.

    Tasks may have any number of ways and shots, in training and after it: the number of labels is the length of
    `Examples.ways`. One step is the whole adaptation; a fresh learner knows nothing, and its state is None.
    """

    net: eqx.AbstractVar[Any]

    @abstractmethod
    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> PyTree:
        """The head. Row i of `own` is the weight of example i under its own label, 0 elsewhere."""

    @abstractmethod
    def logits(self, head: PyTree, features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        """The answers; labels that the support set lacks are left out by the caller."""

    def shares(
        self,
        head: PyTree,
        features: Float[Array, "n feature"],
        support: Float[Array, "m feature"],
        own: Float[Array, "m way"],
    ) -> Float[Array, "n m way"]:
        """What each support example adds to each score: exact, their sum over examples is the score itself.

        The score is the logit, where a learner does not say otherwise.

        Raises:
            NotImplementedError: the answers are no sum over support examples.
        """
        raise NotImplementedError(f"The answers of {type(self).__name__} are no sum over support examples.")

    def explain(self, state: Fitted, support: Examples, data: Examples) -> Float[Array, "n m way"]:
        """`shares` of the support examples that `state` has been adapted to."""
        seen, _ = forward(self.net, support.x, support.weight)
        features, _ = forward(self.net, data.x, data.weight, state.statistics)
        return self.shares(state.head, features, seen, own_label(support, seen.dtype))

    def start(self, *, key: PRNGKeyArray) -> None:
        del key

    def step(self, state: Fitted | None, data: Examples, *, key: PRNGKeyArray) -> Fitted:
        del state, key
        features, statistics = forward(self.net, data.x, data.weight)
        own = own_label(data, features.dtype)
        return Fitted(self.fit(features, own), jnp.any(own > 0, axis=0), statistics)

    def predict(self, state: Fitted, data: Examples) -> Float[Array, "n way"]:
        """Logits for each example; minus infinity for labels that the support set lacks."""
        features, _ = forward(self.net, data.x, data.weight, state.statistics)
        return jnp.where(state.ways, self.logits(state.head, features), -jnp.inf)

    def loss(self, state: Fitted, data: Examples, *, key: PRNGKeyArray) -> Scored:
        del key
        return cross_entropy(self.predict(state, data), data)


def own_label(data: Examples, dtype: Any = float) -> Float[Array, "n way"]:
    """The weight of each example under its own label, 0 elsewhere."""
    if data.ways is None:
        raise ValueError(
            "This learner takes tasks with any number of labels and must be told how many there can be: "
            "`Examples(x, y, ways=jnp.ones(5, bool))` for five."
        )
    own = jax.nn.one_hot(data.y, len(data.ways), dtype=dtype)
    return own if data.weight is None else own * data.weight[:, None].astype(dtype)


def unit(x: Float[Array, "n feature"]) -> Float[Array, "n feature"]:
    """Each row at length 1; a row of zeros stays, with finite derivatives."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def with_one(x: Float[Array, "n feature"]) -> Float[Array, "n feature_1"]:
    """Each row with a 1 at its end, which a linear head turns into an intercept."""
    return jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1)


def square_distances(x: Float[Array, "n feature"], centres: Float[Array, "way feature"]) -> Float[Array, "n way"]:
    """‖x − centre‖² of every row to every centre, by one matrix product."""
    return jnp.sum(x**2, axis=-1)[:, None] + jnp.sum(centres**2, axis=-1) - 2 * x @ centres.T


def shares_of_means(
    features: Float[Array, "n feature"],
    support: Float[Array, "m feature"],
    own: Float[Array, "m way"],
    centres: Float[Array, "way feature"],
) -> Float[Array, "n m way"]:
    """−‖x − centre‖² as a sum over the examples of the class: the mean of −‖x − example‖² + ‖example − centre‖²."""
    share = own / jnp.maximum(jnp.sum(own, axis=0), 1e-9)
    return share * (square_distances(support, centres) - square_distances(features, support)[:, :, None])


def class_means(features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> Float[Array, "way feature"]:
    """The mean feature of each label; zeros for a label without examples."""
    return own.T @ features / jnp.maximum(jnp.sum(own, axis=0), 1e-9)[:, None]
