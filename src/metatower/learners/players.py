"""Players of a game: named sets of leaves, each moved along the gradient of a loss of its own, all at once."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from metatower.core import Metrics, Rule, Scored, State
from metatower.core.shares import mean_over_devices

Loss = Callable[[dict[str, list[Array]]], Scored]
"""Of the leaves of all players, by name."""


class Player(eqx.Module):
    """What a player has learned so far, and the memory of its rule."""

    leaves: list[Array]
    rule: State


def enter(leaves: list[Array], rule: Rule) -> Player:
    """A player at its start."""
    return Player(leaves, rule.start(leaves))


def move_all(
    players: dict[str, Player], rules: dict[str, Rule], losses: dict[str, Loss], shared: str | None = None
) -> tuple[dict[str, Player], Metrics]:
    """One simultaneous step: every player moves by its own loss, with the others where they were.

    Args:
        players, rules, losses: by the same names.
        shared: the mesh axis over which the losses are spread.

    Returns:
        The players, and the metrics of all losses; of the losses themselves under the players' names.
    """
    if not set(players) == set(rules) == set(losses):
        raise ValueError(
            f"move_all: expected the same players, got {[*players]}, rules for {[*rules]}, losses {[*losses]}."
        )
    leaves = {name: player.leaves for name, player in players.items()}
    moved, metrics = {}, {}
    for name, player in players.items():

        def own(mine: list[Array], name: str = name) -> tuple[Float[Array, ""], Metrics]:
            return losses[name]({**jax.lax.stop_gradient(leaves), name: mine})

        (loss, shown), gradient = jax.value_and_grad(own, has_aux=True)(player.leaves)
        loss, shown, gradient = mean_over_devices((loss, shown, gradient), shared)
        rule, new = rules[name].step(player.rule, player.leaves, gradient)
        moved[name] = Player(new, rule)
        metrics |= {**shown, name: loss}
    return moved, metrics
