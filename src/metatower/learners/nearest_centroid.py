"""Nearest centroid: the simple baseline on features of a plainly trained network."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from metatower.core import value
from metatower.core.leaves import constant_unless_array
from metatower.learners.features import FeatureLearner, class_means, shares_of_means, square_distances, unit


class NearestCentroid(FeatureLearner):
    """Answers with the class whose centroid is nearest, features being centred and brought to length 1.

    Wang, Chao, Weinberger & van der Maaten 2019, "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot
    Learning", https://arxiv.org/abs/1911.04623, section 3 (CL2N):

        z = (f(x) − centre) / ‖f(x) − centre‖,    logit_k = −scale · ‖z − mean of z over class k‖²

    Args:
        net: gives the features: a network trained to tell the training classes apart, without its head.
        centre: `[feature]`, the mean feature of the training classes; 0 for none.
        scale: of the logits; the answers do not depend on it, their probabilities do.

    Differs from the paper in: nothing.
    """

    net: Any
    centre: Any = eqx.field(converter=constant_unless_array, default=0.0)
    scale: Any = eqx.field(converter=constant_unless_array, default=10.0)

    def fit(self, features: Float[Array, "n feature"], own: Float[Array, "n way"]) -> Float[Array, "way feature"]:
        return class_means(unit(features - value(self.centre)), own)

    def logits(self, head: Float[Array, "way feature"], features: Float[Array, "n feature"]) -> Float[Array, "n way"]:
        return -value(self.scale) * square_distances(unit(features - value(self.centre)), head)

    def shares(self, head, features, support, own):
        centre = value(self.centre)
        return value(self.scale) * shares_of_means(unit(features - centre), unit(support - centre), own, head)
