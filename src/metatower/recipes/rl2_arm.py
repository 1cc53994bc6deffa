"""RL² on a robot arm with hidden mechanics and faults, beside domain randomisation and control theory."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from metatower.core.errors import UserError
from metatower.envs.arm import SPLITS, Arm
from metatower.envs.references.arm import computed_torque, nominal, proportional
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.statistics import interval
from metatower.evaluation.trials import judge_trials
from metatower.learners.acting import Agent
from metatower.learners.informed import Oracle
from metatower.learners.rl2 import RL2
from metatower.recipes.meta_rl import MetaRL
from metatower.training.loop import train
from metatower.training.progress import Progress

RANDOMISED, ORACLE = "domain randomisation", "oracle (computed torque)"


@dataclass(frozen=True)
class RL2Arm(MetaRL):
    """RL² moves an arm whose masses, payload, friction and wiring it has to find out by moving it.

    A two-link arm has to keep its tip on a target that goes round. Lengths, masses, payload, friction, gains and tilt
    are hidden, and in half of the worlds a joint is faulty, for example wired the wrong way. Beside RL² stand the same
    training without a memory (domain randomisation), controllers of the data sheet's arm, and an oracle that knows the
    mechanics, on worlds as in training and on three kinds of worlds that training has none of.
    """

    name: ClassVar[str] = "rl2-arm"

    steps: int = 400
    episodes: int = 2
    trials: int = 256
    minibatches: int = 8
    rate: float = 1e-3
    trace: float = 0.95
    entropy: float = 0.0
    unit: float = 3.0
    size: int = 128
    judged: int = 2000

    def check(self) -> None:
        super().check()
        if self.ablate:
            raise UserError("rl2-arm: there is no --ablate: the policy without a memory is always trained beside it.")

    def environment(self) -> Arm:
        return Arm()

    def agent(self, **changes: Any) -> RL2:
        return super().agent(**{"hidden": 64, "scale": 0.4, **changes})

    def references(self) -> dict[str, Agent]:
        sheet = nominal()
        return {
            ORACLE: Oracle(2, computed_torque),
            "computed torque, data sheet": Oracle(2, computed_torque, lambda _: sheet),
            "spring and damper, data sheet": Oracle(2, proportional, lambda _: sheet),
        }

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        agents = {"RL²": artefact, RANDOMISED: self._randomised(folder, show)}
        agents |= {**self.before(), **self.references()}
        return self._on_splits(agents, self._notes(), self.seed, show)

    def judge_fresh(self, artefact: Any, *, episodes: int | None, seed: int, show: Progress) -> Conclusion:
        judged = dataclasses.replace(self, judged=episodes or self.judged)
        notes = [
            f"{judged.judged:,} fresh trials of {self.episodes} episode(s), the same for every agent. Seed {seed}."
        ]
        return judged._on_splits({"RL²": artefact, **self.references()}, notes, seed, show)

    def _on_splits(self, agents: dict[str, Agent], notes: list[str], seed: int, show: Progress) -> Conclusion:
        conclusion, trials = Conclusion(notes=notes), self.judged
        for split in SPLITS:
            scores = {}
            for name, agent in agents.items():
                how: dict[str, Any] = {"episodes": self.episodes, "trials": trials, "seed": seed, "show": show}
                scores[name] = judge_trials(agent, Arm(split), title=f"judging: {name}, {split}", **how)
                conclusion.add(f"{name}, {split}", {"return": scores[name]["return"]}, "trial")
            others = [f"{name}, {split}" for name in agents if name != "RL²"]
            conclusion.compare(f"RL², {split}", *others)
            if RANDOMISED in scores:
                three = (scores[name]["return"] for name in ("RL²", RANDOMISED, ORACLE))
                conclusion.notes.append(f"{split}: {closed(*three)}")
            conclusion.figures[f"episodes-{split}"] = Curves(
                f"Return of each episode in worlds of the split {split!r}, means of {trials:,} trials.",
                "episode of the trial",
                "return of the episode",
                {name: interval(each["by episode"]) for name, each in scores.items()},
                np.arange(1, self.episodes + 1),
            )
            conclusion.figures[f"entropy-{split}"] = Curves(
                f"How undecided agents that learn are in worlds of the split {split!r}: the entropy of their moves, "
                "which is below zero where these hardly differ.",
                "episode of the trial",
                "entropy (nats)",
                {name: interval(each["entropy"]) for name, each in scores.items() if "entropy" in each},
                np.arange(1, self.episodes + 1),
            )
        return conclusion

    def _randomised(self, folder: Path, show: Progress) -> Agent:
        """The same training for a policy that sees the observation alone."""
        blind = dataclasses.replace(self.agent(memory="none"), inputs=("observation",))
        trainer = self.trainer(blind)
        state = train(
            trainer,
            self.data(),
            steps=self.steps,
            seed=self.seed,
            folder=folder / "baselines" / "domain-randomisation",
            config=self.options(),
            title=f"baseline: {RANDOMISED}",
            show=show,
        )
        return trainer.result(state)


def share_closed(mine: np.ndarray, below: np.ndarray, above: np.ndarray) -> float:
    """How much of the gap between two agents a third closes."""
    return float((mine.mean() - below.mean()) / (above.mean() - below.mean()))


def closed(mine: np.ndarray, below: np.ndarray, above: np.ndarray) -> str:
    """The same in a sentence, with an interval by the delta method over trials."""
    gap, share = above.mean() - below.mean(), share_closed(mine, below, above)
    half = 1.96 * np.std(mine - below - share * (above - below), ddof=1) / np.sqrt(len(mine)) / abs(gap)
    return (
        f"RL² closes {100 * share:.1f} % [{100 * (share - half):.1f}, {100 * (share + half):.1f}] of the gap of "
        f"{gap:.2f} between {RANDOMISED} and the oracle."
    )
