"""Matching Networks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from metatower.core import value
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import FeatureLearner, unit


class FullContext(eqx.Module):
    """Embeddings in the light of the whole support set (Vinyals et al. 2016, appendix A).

    The support set goes through a bidirectional LSTM, in the order it comes in:  g = forward + backward + g′.
    A query looks at it through an LSTM of `steps` steps with attention (equations 3 to 6):

        (ĥ, c) = LSTM(f′, [h, r], c),   h = ĥ + f′,   r = Σ_i softmax_i(h · g_i) g_i

    Args:
        features: numbers per embedding.
        steps: how often a query looks.
    """

    ahead: eqx.nn.LSTMCell
    back: eqx.nn.LSTMCell
    look: eqx.nn.LSTMCell
    steps: int = eqx.field(static=True)

    def __init__(self, features: int, steps: int = 5, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.ahead = eqx.nn.LSTMCell(features, features, key=keys[0])
        self.back = eqx.nn.LSTMCell(features, features, key=keys[1])
        # its hidden state [h, r] is linear in both parts, so that r may come in as an input
        self.look = eqx.nn.LSTMCell(2 * features, features, key=keys[2])
        self.steps = steps

    def support(self, x: Float[Array, "n feature"], weight: Float[Array, " n"]) -> Float[Array, "n feature"]:
        """The embeddings g; an example of weight 0 is passed over."""

        def read(cell, reverse):
            def tick(state, example):
                x, there = example
                new = jax.tree.map(lambda new, old: jnp.where(there, new, old), cell(x, state), state)
                return new, new[0]

            blank = jnp.zeros(x.shape[1], x.dtype)
            return jax.lax.scan(tick, (blank, blank), (x, weight > 0), reverse=reverse)[1]

        return read(self.ahead, False) + read(self.back, True) + x

    def query(
        self, x: Float[Array, "n feature"], support: Float[Array, "m feature"], weight: Float[Array, " m"]
    ) -> Float[Array, "n feature"]:
        """The embeddings f, each query by itself."""

        def one(x):
            def tick(state, _):
                h, c, r = state
                h, c = self.look(jnp.concatenate([x, r]), (h, c))
                h = h + x
                attention = jax.nn.softmax(jnp.where(weight > 0, support @ h, -jnp.inf))
                return (h, c, attention @ support), None

            blank = jnp.zeros_like(x)
            return jax.lax.scan(tick, (blank, blank, blank), length=self.steps)[0][0]

        return jax.vmap(one)(x)


class MatchingNetwork(FeatureLearner):
    """Answers with the labels of the support examples, by attention.

    Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra 2016, "Matching Networks for One Shot Learning",
    https://arxiv.org/abs/1606.04080, equations 1 and 2:

        a(x, x_i) = softmax_i(scale · cos(f(x), g(x_i))),    p(y | x) = Σ_i a(x, x_i) y_i

    `attention` gives the a(x, x_i) themselves. Train it as `lift(MatchingNetwork(net), clip(adam(1e-3)))`.

    Args:
        net: gives the features, of support and query alike.
        scale: of the cosines; a number (fixed), an array or `Positive` (learned).
        context: full-context embeddings, none if None.

    Differs from the paper in: the scale, which is 1 there and trains slowly.
    """

    net: Any
    scale: Any = eqx.field(converter=constant_unless_array, default=10.0)
    context: FullContext | None = None

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> tuple[Array, Array]:
        if self.context is not None:
            features = self.context.support(features, jnp.sum(own, axis=1))
        return features, own

    def logits(self, head: tuple[Array, Array], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        own = head[1].T > 0
        similarity = jnp.broadcast_to(self._similarity(head, features)[:, None, :], (len(features), *own.shape))
        # a label without examples sums over all of them: finite, with finite derivatives, and left out by the caller
        counted = own | ~jnp.any(own, axis=1, keepdims=True)
        return jax.nn.logsumexp(jnp.where(counted, similarity, -jnp.inf), axis=-1)

    def attention(self, head: tuple[Array, Array], features: Float[Array, "n feature"]) -> Float[Array, "n support"]:
        """How much each support example counts in each answer; rows sum to 1."""
        there = jnp.any(head[1] > 0, axis=1)
        return jax.nn.softmax(jnp.where(there, self._similarity(head, features), -jnp.inf))

    def shares(self, head, features, support, own):
        """Of the probabilities: the attention, under the label of each example."""
        del support
        return self.attention(head, features)[:, :, None] * (own > 0)

    def _similarity(self, head, features):
        support, own = head
        if self.context is not None:
            features = self.context.query(features, support, jnp.sum(own, axis=1))
        return value(self.scale) * unit(features) @ unit(support).T
