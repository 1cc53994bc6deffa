"""Two players at a time: who moves by what, and where a game comes to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower import sgd
from metatower.learners.players import enter, move_all
from metatower.nets.discriminator import gradient_penalty, relativistic


def test_each_moves_by_its_own_loss_from_where_both_were():
    players = {"one": enter([jnp.array(1.0)], sgd(0.1)), "two": enter([jnp.array(2.0)], sgd(0.1))}
    losses = {
        "one": lambda leaves: (leaves["one"][0] * leaves["two"][0], {}),
        "two": lambda leaves: (leaves["one"][0] * leaves["two"][0] ** 2, {"seen": leaves["one"][0]}),
    }
    moved, metrics = move_all(players, {"one": sgd(0.1), "two": sgd(0.1)}, losses)
    np.testing.assert_allclose(moved["one"].leaves[0], 1 - 0.1 * 2)
    np.testing.assert_allclose(moved["two"].leaves[0], 2 - 0.1 * 2 * 1 * 2)
    assert metrics["one"] == 2.0
    assert metrics["two"] == 4.0
    assert metrics["seen"] == 1.0  # where it was, and not where it went


def test_players_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"the same players, got \['one'\]"):
        move_all({"one": enter([jnp.ones(1)], sgd(0.1))}, {"two": sgd(0.1)}, {})


def dirac(penalty: float, steps: int = 3000) -> np.ndarray:
    """Mescheder et al. 2018, the Dirac-GAN: what is real is the point 0, what is made the point θ, D(x) = ψ x."""
    rule = sgd(0.1)

    def generator(leaves):
        (theta,), (psi,) = leaves["generator"], leaves["discriminator"]
        return relativistic(psi * theta[None], psi * jnp.zeros(1)), {}

    def discriminator(leaves):
        (theta,), (psi,) = leaves["generator"], leaves["discriminator"]
        told = relativistic(psi * jnp.zeros(1), psi * theta[None])
        judge = lambda x: psi * x[0]  # noqa: E731
        return told + penalty * (
            gradient_penalty(judge, jnp.zeros((1, 1))) + gradient_penalty(judge, theta[None, None])
        ), {}

    players = {"generator": enter([jnp.array(1.0)], rule), "discriminator": enter([jnp.array(0.0)], rule)}
    rules, losses = dict.fromkeys(players, rule), {"generator": generator, "discriminator": discriminator}

    @jax.jit
    def run(players):
        return jax.lax.scan(lambda p, _: (move_all(p, rules, losses)[0], None), players, None, steps)[0]

    ended = run(players)
    return np.array([ended["generator"].leaves[0], ended["discriminator"].leaves[0]])


def test_with_its_penalties_the_relativistic_game_ends_at_the_truth_and_without_them_it_goes_round():
    np.testing.assert_allclose(dirac(penalty=0.3), 0.0, atol=1e-6)
    # by hand: θ² + ψ² changes by 2 · rate · θψ (σ(−θψ) − σ(θψ)), of fourth order, so it shrinks with 1 / √steps only
    assert np.linalg.norm(dirac(penalty=0.0)) > 0.3
