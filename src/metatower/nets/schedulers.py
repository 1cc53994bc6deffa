"""Controllers that learn nothing above a run: what a learned one has to beat."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metatower.nets.controller import CHANGES, EXPLORE, FOCUS, PROGRESS, Changed, Chosen, Controller, Option, Seen


class Schedule(Controller):
    """The same number of inner steps throughout, bins in turn or by fixed logits, and rates that move by fixed steps.

    With no logits and no drift it is a static schedule; with the logits of an oracle, what perfect knowledge is worth.

    Args:
        inner: which of the numbers of inner steps.
        drift: what is added to the log rates at every meta-step.
        logits: of the bins; all in turn if None.
    """

    inner: Int[Array, ""]
    drift: Float[Array, " change"]
    logits: Float[Array, " bin"] | None = None

    def start(self) -> None:
        return None

    def manage(self, memory: None, seen: Seen, *, key: PRNGKeyArray) -> Chosen:
        logits = jnp.zeros(len(seen.bins)) if self.logits is None else self.logits
        routine = jnp.array(EXPLORE if self.logits is None else FOCUS)
        return None, Option(logits, self.inner, routine), jnp.zeros(())

    def work(self, memory: None, seen: Seen, option: Option, *, key: PRNGKeyArray) -> Changed:
        return self.drift, jnp.zeros(())


class RandomChoice(Controller):
    """Everything at random: bins, routine, inner steps, and a walk of the log rates with steps of size `scale`."""

    scale: Float[Array, ""]
    choices: int = eqx.field(static=True, default=3)

    def start(self) -> None:
        return None

    def manage(self, memory: None, seen: Seen, *, key: PRNGKeyArray) -> Chosen:
        keys = jax.random.split(key, 3)
        inner, routine = (jax.random.randint(k, (), 0, n) for k, n in zip(keys[:2], (self.choices, 3), strict=True))
        return None, Option(2 * jax.random.normal(keys[2], (len(seen.bins),)), inner, routine), jnp.zeros(())

    def work(self, memory: None, seen: Seen, option: Option, *, key: PRNGKeyArray) -> Changed:
        return self.scale * jax.random.normal(key, (len(CHANGES),)), jnp.zeros(())


class Exp3(Controller):
    """An adversarial bandit over the bins, paid by what a task taught (Auer et al. 2002, "The nonstochastic multiarmed
    bandit problem", figure 1; as a curriculum, Graves et al. 2017, https://arxiv.org/abs/1704.03003).

        p = (1 − γ) softmax(S) + γ / bins,    S_b ← S_b + rate · Σ over the tasks of bin b of r / (p_b · tasks)

    The reward r is the *gain* of adaptation, the log of the query loss before over after, or (`progress` of 1) by how
    much the log of the bin's loss after adaptation lies below its average so far; in [−1, 1].

    Differs from the papers in: several tasks per step; rewards are clipped, not rescaled by quantiles.

    Args:
        rate: of S.
        mixed: γ.
        progress: what progress counts in the reward, and 1 − `progress` what the gain does.
        bins: how many.
        inner: which of the numbers of inner steps.
        routine: FOCUS draws tasks from bins by p, EXPLORE takes all in turn and weights their tasks by p.
        drift: what is added to the log rates at every meta-step.
    """

    rate: Float[Array, ""]
    mixed: Float[Array, ""]
    progress: Float[Array, ""]
    inner: Int[Array, ""]
    routine: Int[Array, ""]
    drift: Float[Array, " change"]
    bins: int = eqx.field(static=True)

    def start(self) -> tuple[Array, Array]:
        return jnp.zeros(self.bins), jnp.full(self.bins, 1 / self.bins)

    def manage(self, memory: tuple[Array, Array], seen: Seen, *, key: PRNGKeyArray) -> Chosen:
        sums, chance = memory
        rewards = self.progress * seen.bins[seen.drawn, PROGRESS] + (1 - self.progress) * seen.gain
        earned = jnp.clip(rewards, -1.0, 1.0)
        picked = jax.nn.one_hot(seen.drawn, self.bins, dtype=sums.dtype)
        drawn = jnp.where(self.routine == EXPLORE, 1 / self.bins, chance)  # how likely each bin was to be seen
        sums = sums + self.rate * (earned / drawn[seen.drawn]) @ picked / len(earned)
        chance = (1 - self.mixed) * jax.nn.softmax(sums) + self.mixed / self.bins
        return (sums, chance), Option(jnp.log(chance), self.inner, self.routine), jnp.zeros(())

    def work(self, memory: tuple[Array, Array], seen: Seen, option: Option, *, key: PRNGKeyArray) -> Changed:
        return self.drift, jnp.zeros(())
