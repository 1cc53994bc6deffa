"""RL² on Bernoulli bandits, beside what is provably best."""

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core.errors import UserError
from metatower.core.keys import fork
from metatower.envs.bandit import BernoulliBandit
from metatower.envs.protocol import Environment
from metatower.envs.references.bandit import LONGEST, bayes_optimal_value, gittins_table, known_best_value
from metatower.envs.trial import Trial
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import episode_keys
from metatower.evaluation.probe import linear_probe
from metatower.evaluation.statistics import interval, paired
from metatower.learners.acting import Agent, Played, play
from metatower.learners.bandit_agents import UCB, BestArm, EpsilonGreedy, Gittins, Greedy, RandomArm, Thompson
from metatower.learners.rl2 import RL2
from metatower.recipes.meta_rl import MetaRL

PROBED = 2000
"""Trials whose memories are decoded."""
GITTINS = "Gittins index"
OTHERS = ((0.0, 0.3), (0.35, 0.65), (0.7, 1.0))
"""Bounds of the probabilities of arms, other than those of training."""
EXACT = {1: 100, 2: 50, 3: 16, 4: 12}
"""Pulls up to which the Bayes-optimal value takes seconds, by arms; 10 for more."""


@dataclass(frozen=True)
class RL2Bandits(MetaRL):
    """RL² learns to play slot machines: a recurrent network that explores, and remembers what paid.

    The bandit experiment of Duan et al. 2016 (section 3.1, table 1). Every trial has its own machine, whose arms pay 1
    with probabilities that nobody knows, p ~ U[0, 1]; an episode is one pull. The network sees its last action and what
    it paid, and its memory is all that learns in a trial. Beside it stand the classical agents and, where it can be
    computed, the Bayes-optimal value, which no agent can exceed.
    """

    name: ClassVar[str] = "rl2-bandits"

    steps: int = 1000
    trace: float = 0.7
    settle: bool = True
    arms: int = 5
    """Arms of a bandit (k)."""
    episodes: int = 10
    """Pulls per trial (n)."""

    def check(self) -> None:
        super().check()
        if self.arms < 2:
            raise UserError(
                f"{self.name}: expected --arms of at least 2, as there is nothing to choose; got {self.arms}."
            )

    def environment(self) -> BernoulliBandit:
        return BernoulliBandit(self.arms)

    def references(self) -> dict[str, Agent]:
        k, pulls = self.arms, self.episodes
        found: dict[str, Agent] = {
            "random": RandomArm(k),
            "greedy": Greedy(k),
            "ε-greedy (0.05)": EpsilonGreedy(k),
            "UCB1": UCB(k, 2**0.5, 0.0),
            self.tuned: UCB(k, self.bonus),
            "Thompson sampling": Thompson(k),
            "optimistic Thompson sampling": Thompson(k, optimistic=True),
        }
        if pulls <= LONGEST:
            found[GITTINS] = Gittins(k, gittins_table(pulls))
        return {**found, "knows the arms": BestArm(k)}

    @property
    def bonus(self) -> float:
        """A bonus that suits UCB from the uniform prior, by `python -m benchmarks.references --bonuses`."""
        if self.episodes <= 30:
            return 0.1
        if self.episodes > 300:
            return 0.35
        return 0.3 if self.arms < 10 else 0.25

    @property
    def tuned(self) -> str:
        """What that agent is called."""
        return f"UCB, tuned ({self.bonus})"

    def about_references(self) -> list[str]:
        known = f"Who knows the arms gains {known_best_value(self.episodes, self.arms):.4g} on average."
        if self.bayes_optimal is None:
            return [f"{known} The Bayes-optimal value of so long a trial cannot be computed."]
        return [f"Bayes-optimal, exact: {self.bayes_optimal:.4f}; no agent can gain more on average. {known}"]

    @property
    def bayes_optimal(self) -> float | None:
        """The most that any agent can gain on average; None where it takes too long to compute."""
        feasible = self.episodes <= EXACT.get(self.arms, 10)
        return bayes_optimal_value(self.episodes, self.arms) if feasible else None

    def least_regret(self) -> dict[str, float]:
        """The least that any agent can regret by the end of a trial, on average, where it can be computed."""
        if self.bayes_optimal is None:
            return {}
        return {"least at the end (exact)": known_best_value(self.episodes, self.arms) - self.bayes_optimal}

    def also(self):
        return regret

    def others(self) -> dict[str, Environment]:
        return {f"p ~ U[{low:g}, {high:g}]": BernoulliBandit(self.arms, low, high) for low, high in OTHERS}

    def rival(self) -> str:
        return self.tuned  # the best agent that was made for no bandit

    def present(self, conclusion: Conclusion, scores: dict[str, dict[str, np.ndarray]]) -> None:
        super().present(conclusion, scores)
        conclusion.figures["regret"] = Curves(
            "Regret: how much less the pulled arms pay on average than the best arm, summed over the pulls so far.",
            "pull",
            "regret",
            {name: interval(np.cumsum(each["regret"], axis=1)) for name, each in scores.items()},
            np.arange(1, self.episodes + 1),
            levels=self.least_regret(),
        )
        conclusion.figures.pop("episodes", None)  # of one pull each: the regret shows it better
        mine = interval(np.sum(scores["RL²"]["regret"], axis=1))
        conclusion.notes.append(
            f"RL² regrets {mine.mean:.3f} [{mine.lo:.3f}, {mine.hi:.3f}] per trial against who knows the arms."
        )
        if self.bayes_optimal is not None:
            # the luck of the trials is larger than what is lost: only pairs can tell
            lost = paired(scores[GITTINS]["return"], scores["RL²"]["return"])
            conclusion.notes.append(
                f"RL² loses {lost.mean:.3f} [{lost.lo:.3f}, {lost.hi:.3f}] per trial, "
                f"{100 * lost.mean / self.bayes_optimal:.1f} %, against the Gittins index in the same trials, which is "
                "nearly optimal."
            )

    def look_inside(self, conclusion: Conclusion, artefact: RL2) -> None:
        super().look_inside(conclusion, artefact)
        untrained = self.decoded(self.agent(), artefact)
        for name, r2 in self.decoded(artefact, artefact).items():
            conclusion.notes.append(
                f"A linear map reads {name} off the memory with R² = {r2:.2f}, on trials kept apart; off that of the "
                f"untrained network, which saw the same trials, with {untrained[name]:.2f}."
            )

    def decoded(self, reader: RL2, player: RL2) -> dict[str, float]:
        """How much of the true posterior a linear map finds in the memory of `reader`: R² on trials kept apart.

        Args:
            reader: sees all that `player` sees and does.
            player: acts.
        """

        @eqx.filter_jit
        def one(agents, environment, key):
            reader, player = agents
            key_task, key_play = fork(key, 2)
            task = environment.sample_task(key_task)
            played = play(player, Trial(environment, episodes=self.episodes), task, key=key_play)
            told = jax.vmap(reader.told)(played.seen)
            said = reader.net.memory.over(reader.net.start(), told)[1]
            pulled = jnp.cumsum(played.seen.action, axis=0)
            won = jnp.cumsum(played.seen.action * played.seen.reward[:, None], axis=0)
            mean = (1 + won) / (2 + pulled)
            return said[1:], {"the posterior mean of each arm": mean[1:], "how often each was pulled": pulled[1:]}

        environment = self.environment()
        keys = episode_keys(self.seed_for(1), 0, PROBED)
        said, truth = jax.device_get(eqx.filter_vmap(one, in_axes=(None, None, 0))((reader, player), environment, keys))
        return {name: linear_probe(said, values) for name, values in truth.items()}


def regret(played: Played, task: Any) -> dict[str, Any]:
    """How much less each pulled arm pays on average than the best, `[pulls]`."""
    return {"regret": jnp.max(task) - task[played.action]}
