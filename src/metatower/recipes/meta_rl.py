"""What the recipes of RL² share: the agent, PPO, and how the trained agent is judged beside its references."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from metatower.core import Learner, State, Tasks, pick, put
from metatower.core.errors import UserError
from metatower.envs.protocol import Environment, Solvable
from metatower.envs.told import told
from metatower.envs.trial import Worlds
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.statistics import interval, paired
from metatower.evaluation.trials import Also, judge_trials
from metatower.learners.acting import Agent
from metatower.learners.ppo import PPO
from metatower.learners.rl2 import RL2, rl2
from metatower.recipes.base import Recipe
from metatower.recipes.run import load
from metatower.rules import adam, anneal, clip
from metatower.training.loop import train
from metatower.training.progress import Progress, Silent

CLIP = 0.5
"""Global norm that the gradients are scaled down to."""

ELSEWHERE = 2000
"""Trials in each of the other distributions, at most."""
TOLD = "told the task"
REGRET = (
    "Training learned from the exact regret of each action (`--signal regret`), which takes the truth about the worlds "
    "of training: it can be had of simulated ones only. The agent sees nothing of it, and no evaluation uses it."
)


@dataclass(frozen=True)
class MetaRL(Recipe):
    """What the recipes of RL² share; a subclass gives the environment and the agents to compare with.

    A trial: several episodes in one world that the agent has never seen; it keeps its memory from one to the next.
    """

    judges_itself: ClassVar[bool] = True
    use: ClassVar[str] = """\
metatower evaluate {run} --seed 1   # judge it again, in fresh worlds

import metatower
agent = metatower.load("{run}")
adapted = agent.adapt(env, episodes=3)   # learn in an environment of Gymnasium: pip install 'metatower[gymnasium]'
print(adapted.returns)                   # of each episode"""

    episodes: int = 10
    """Episodes of one trial; the memory begins anew with each trial."""
    trials: int = 1024
    """Trials per training step."""
    minibatches: int = 4
    """Groups that they are split into; must divide them."""
    epochs: int = 4
    """How often each trial is learned from."""
    chunk: int | None = None
    """Trials learned from at the same time, all of a minibatch if not given. Fewer need less memory."""
    rate: float = 3e-3
    """Adam's step size; it falls to zero in the second half of the training."""
    discount: float = 0.99
    """Of later rewards, in training; returns are reported without."""
    trace: float = 0.3
    """λ of the generalised advantages."""
    entropy: float = 0.01
    """Weight of the policy's entropy."""
    settle: bool = False
    """With `--settle` that weight falls to zero with the rate, so that the agent ends by exploring on purpose alone;
    with `--no-settle` it stays."""
    unit: float = 1.0
    """What rewards are counted in, in training, so that values are about 1."""
    signal: Literal["reward", "regret"] = "reward"
    """What training learns from: the rewards, or by how much each action is known to fall short of the best one."""
    memory: Literal["gru", "mingru", "attention", "none"] = "gru"
    """The network's memory: gated recurrent units, or two layers of minimal ones or of linear attention, or none."""
    size: int = 64
    """Units of the memory."""
    start: Path | None = None
    """A finished run, or an agent that comes with the package, whose weights this training goes on from: one that has
    learned in shorter trials, say. It stays where it is until the run has ended."""
    judged: int = 20_000
    """Fresh trials to be judged on."""
    ablate: bool = False
    """Whether to train three agents more: without memory, without seeing its rewards, and told what is hidden. They
    show whether meta-learning was needed here."""

    def check(self) -> None:
        super().check()
        self.at_least_one("episodes", "trials", "minibatches", "epochs", "size")
        self.two_to_judge_on(self.judged, "trials")
        if self.ablate and self.start:
            raise UserError(f"{self.name}: --ablate trains from fresh weights what --start does not. Take one of them.")
        self.above_zero("rate", "unit")
        if self.chunk is not None:
            self.at_least_one("chunk")
        self.from_zero_to_one("discount", "trace")
        if self.signal == "regret" and not isinstance(self.environment(), Solvable):
            raise UserError(
                f"{self.name}: the regret of {type(self.environment()).__name__} is not known. Take signal 'reward'."
            )

    @abstractmethod
    def environment(self) -> Environment:
        """What is played."""

    @abstractmethod
    def references(self) -> dict[str, Agent]:
        """The agents to compare with, by name."""

    def about_references(self) -> list[str]:
        """Exact values and other facts for the notes."""
        return []

    def also(self) -> Also | None:
        """What else is measured in each trial, see `judge_trials`."""
        return None

    def agent(self, **changes: Any) -> RL2:
        """The agent with fresh weights."""
        how: dict[str, Any] = {"environment": self.environment(), "size": self.size, "memory": self.memory, **changes}
        return rl2(key=jax.random.key(self.seed), steps=self.episodes, reward_unit=self.reward_unit, **how)

    @property
    def reward_unit(self) -> float:
        """What rewards are divided by before the network sees them."""
        return 1.0

    def build(self) -> tuple[Any, Tasks]:
        self.started()  # refused now if it cannot be
        return super().build()

    def learner(self) -> PPO:
        return self.trainer(self.agent())

    def begin(self, learner: PPO, folder: Path, show: Progress) -> PPO:
        """The trainer of the agent that training goes on from."""
        del folder, show
        started = self.started()
        return learner if started is None else dataclasses.replace(learner, agent=started)

    def started(self) -> RL2 | None:
        """What training goes on from, if not from fresh weights."""
        if self.start is None:
            return None
        fresh, found = self.agent(), load(self.start)
        if not isinstance(found, RL2) or _form(found) != _form(fresh):
            raise UserError(
                f"--start {self.start}: expected an RL² agent with memory {self.memory!r} of {self.size} units that "
                f"sees and does what agents of {self.name} do, got another. Take a run of the same recipe and options."
            )
        return put(fresh, pick(found))

    def before(self) -> dict[str, Agent]:
        """The agent before this training, under its name in tables."""
        started = self.started()
        return {"RL², untrained": self.agent()} if started is None else {"RL², as it began": started}

    def with_absolute_paths(self) -> Recipe:
        absolute = super().with_absolute_paths()
        named = self.start is not None and not self.start.is_dir()  # an agent that comes with the package
        changes: dict[str, Any] = {"start": self.start} if named else {}
        return dataclasses.replace(absolute, **changes)

    def trainer(self, agent: RL2) -> PPO:
        """How an agent is trained."""
        moves = max(2, self.steps * self.epochs * self.minibatches)
        return PPO(
            agent,
            anneal(clip(adam(self.rate), CLIP), begin=moves // 2, end=moves),
            self.episodes,
            trials=self.trials,
            epochs=self.epochs,
            minibatches=self.minibatches,
            discount=self.discount,
            trace=self.trace,
            entropy=self.entropy,
            settle=(self.steps // 2, max(1, self.steps)) if self.settle else None,
            unit=self.unit,
            chunk=self.chunk,
            signal=self.signal,
        )

    def data(self) -> Worlds:
        return Worlds(self.environment())

    def artefact(self, learner: Any, state: State) -> Learner:
        return learner.result(state)

    def held_out(self) -> Worlds:
        return self.data()

    def judge(
        self, agent: Agent, show: Progress, title: str, environment: Environment | None = None, **how: Any
    ) -> dict[str, np.ndarray]:
        """What an agent gains in the fresh trials, which are the same for all."""
        return judge_trials(
            agent,
            environment or self.environment(),
            episodes=self.episodes,
            trials=self.judged,
            seed=self.seed,
            also=self.also(),
            show=show,
            title=f"judging: {title}",
            **how,
        )

    def conclude(self, artefact: Any, folder: Path, show: Progress) -> Conclusion:
        agents: dict[str, Agent] = {"RL²": artefact, "RL², greedy": dataclasses.replace(artefact, greedy=True)}
        agents |= {**self.before(), **self.references()}
        scores = {name: self.judge(agent, show, name, **self.how_played(agent)) for name, agent in agents.items()}
        for name, (agent, environment) in self._ablated().items():
            trained = self._trained(name, agent, environment, folder, show)
            scores[name] = self.judge(trained, show, name, environment=environment)
        conclusion = Conclusion(notes=[*self._notes(), *self.about_references()])
        self.present(conclusion, scores)
        self.look_inside(conclusion, artefact)
        return conclusion

    def present(self, conclusion: Conclusion, scores: dict[str, dict[str, np.ndarray]]) -> None:
        """Adds what can be seen of the trials that agents have played: rows, differences, figures, notes."""
        for name, each in scores.items():
            conclusion.add(name, {"return": each["return"]}, "trial")
        conclusion.compare("RL²", *(name for name in scores if name != "RL²"))
        if self.episodes > 1:
            conclusion.figures["episodes"] = Curves(
                f"Learning within a trial: the return of each episode, means of {self.judged:,} trials with 95 % "
                "intervals.",
                "episode of the trial",
                "return of the episode",
                {name: interval(each["by episode"]) for name, each in scores.items()},
                np.arange(1, self.episodes + 1),
            )
            gain = paired(scores["RL²"]["by episode"][:, -1], scores["RL²"]["by episode"][:, 0])
            conclusion.notes.append(
                f"RL² gains {gain.mean:+.3f} [{gain.lo:+.3f}, {gain.hi:+.3f}] from the first episode to the last."
            )
        conclusion.figures["entropy"] = Curves(
            "How undecided the agent is in each episode: the entropy of its actions.",
            "episode of the trial",
            "entropy (nats)",
            {
                name: interval(scores[name]["entropy"])
                for name in ("RL²", "RL², untrained", "RL², as it began")
                if name in scores
            },
            np.arange(1, self.episodes + 1),
        )
        conclusion.notes += self.about_episodes(scores)

    def how_played(self, agent: Agent) -> dict[str, Any]:
        """Arguments of `judge_trials` that suit an agent."""
        del agent
        return {}

    def judge_fresh(self, artefact: Any, *, episodes: int | None, seed: int, show: Progress) -> Conclusion:
        judged = dataclasses.replace(self, judged=episodes or self.judged, seed=seed)
        scores = {
            name: judged.judge(agent, show, name, **self.how_played(agent))
            for name, agent in {"RL²": artefact, **self.references()}.items()
        }
        words = f"{judged.judged:,} fresh trials of {self.episodes} episode(s), the same for every agent."
        conclusion = Conclusion(notes=[words, *self.about_references()])
        judged.present(conclusion, scores)
        return conclusion

    def about_episodes(self, scores: dict[str, dict[str, np.ndarray]]) -> list[str]:
        """The return of each episode, for trials of a few."""
        if not 1 < self.episodes <= 10 or self.environment().horizon == 1:
            return []
        said = []
        for name in [name for name in scores if name.startswith("RL²") and "untrained" not in name] + ["oracle"]:
            if name in scores:
                each = interval(scores[name]["by episode"])
                rows = (f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in zip(each.mean, each.lo, each.hi, strict=True))
                said.append(f"{name}, episode by episode: {', '.join(rows)}.")
        return said

    def look_inside(self, conclusion: Conclusion, artefact: RL2) -> None:
        """Adds what else there is to be seen of a trained agent; subclasses may."""
        conclusion.notes += self.elsewhere(artefact)

    def others(self) -> dict[str, Environment]:
        """Worlds that training had none of, by what tells them apart."""
        return {}

    def rival(self) -> str:
        """The reference that it is compared with there."""
        return "oracle"

    def elsewhere(self, agent: RL2) -> list[str]:
        """How it does in worlds that training had none of."""
        others = self.others()
        if not others:
            return []
        found, name = [], self.rival()
        rival, judged = self.references()[name], dataclasses.replace(self, judged=min(self.judged, ELSEWHERE))
        for words, environment in others.items():
            mine, other = (
                judged.judge(each, Silent(), words, environment, **self.how_played(each))["return"]
                for each in (agent, rival)
            )
            mean, gain = interval(mine), paired(mine, other)
            found.append(
                f"Out of distribution, {words}: {mean.mean:.3f} [{mean.lo:.3f}, {mean.hi:.3f}], "
                f"against {name} {gain.mean:+.3f} [{gain.lo:+.3f}, {gain.hi:+.3f}]."
            )
        return found

    def _ablated(self) -> dict[str, tuple[RL2, Environment]]:
        """What is trained in the same way to see what it is worth, and where."""
        if not self.ablate:
            return {}
        whole, shown = self.agent(), told(self.environment())
        inputs = tuple(name for name in whole.inputs if name != "reward")
        return {
            "without memory": (self.agent(memory="none"), self.environment()),
            "without rewards to see": (dataclasses.replace(whole, inputs=inputs), self.environment()),
            TOLD: (self.agent(environment=shown), shown),
        }

    def _trained(self, name: str, agent: RL2, environment: Environment, folder: Path, show: Progress) -> Agent:
        trainer = self.trainer(agent)
        state = train(
            trainer,
            Worlds(environment),
            steps=self.steps,
            seed=self.seed,
            folder=folder / "baselines" / name.replace(" ", "-"),
            config=self.options(),
            title=f"ablation: {name}",
            show=show,
        )
        return trainer.result(state)

    def _notes(self) -> list[str]:
        length = self.episodes * self.environment().horizon
        total = self.steps * self.trials * length
        return [
            f"{self.episodes} episode(s) per trial, up to {length} steps; judged on {self.judged:,} fresh trials, the "
            f"same worlds and the same luck for every agent. Seed {self.seed}.",
            f"RL²: memory {self.memory!r} of {self.size} units, PPO, {self.steps:,} steps of {self.trials:,} trials "
            f"({total / 1e6:.3g} million steps of the world), {self.epochs} epochs of {self.minibatches} minibatches, "
            f"Adam from {self.rate:g}, discount {self.discount:g}, λ {self.trace:g}, entropy {self.entropy:g}"
            f"{', which falls to zero in the second half' if self.settle else ''}.",
            *([f"Training went on from the weights of {self.start.name}."] if self.start else []),
            *([REGRET] if self.signal == "regret" else []),
        ]


def _form(agent: RL2) -> tuple[type, list[tuple[int, ...]]]:
    """What two agents have in common if one can go on from the weights of the other."""
    return type(agent.net.memory), [leaf.shape for leaf in pick(agent)]
