"""A learned update rule on storey 0, trained on optimisation problems."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metatower.core import Constant, Descend, Positive, Rule, State, Task, Tasks, lift
from metatower.core.errors import UserError
from metatower.core.keys import fork, fork_at
from metatower.evaluation.conclusion import Conclusion, Curves
from metatower.evaluation.episodes import episode_keys
from metatower.evaluation.statistics import interval
from metatower.gradients import Clipped, Lifelong, rising_weights
from metatower.nets.optimisee import Optimisee
from metatower.recipes.base import Recipe
from metatower.recipes.maml_baselines import TUNING_SEED
from metatower.rules import adam, anneal, clip, learned_lstm, learned_mlp, momentum, rescaled, sgd
from metatower.tasks.optimisation import ProblemFamily
from metatower.tasks.pooled import Pooled
from metatower.training.progress import Progress

OURS, FROZEN = "learned rule", "the rule frozen at its start"
METRIC = "log10 of relative loss"
"""Of the query's loss after so many steps over that before the first: −1 is a tenth of it."""
RATES = tuple(float(f"{10 ** (third / 3):.2g}") for third in range(-9, 2))
"""Among which the rates of hand-made rules are chosen: three to a decade, from 0.001 to 2.2."""
CEILING = 3.0
"""What a run counts as whose loss is higher or not finite: a thousand times the loss at the start."""
LONGER = 10
"""How many times the steps of its training the rule is tried for."""
RUN_CLIP, TOP_CLIP = 1.0, 1.0
"""Norms that the gradients of each run, and of their mean, are scaled down to."""


@dataclass(frozen=True)
class LearnedOptimiser(Recipe):
    """An optimiser that is learned, on optimisation problems whose optimum mostly is known.

    A small network, the same for every parameter, says from the gradients so far where the parameters go. It is
    trained on whole runs on quadratics and logistic regressions with spectra of many widths, whose tensors are rescaled
    at random, by the logarithm of the loss along the run: what counts is by what factor the loss falls. Judged so on
    fresh problems, on wider spectra with more noise, and on a kind of problem that no training run has seen, over half
    the steps of its training, all of them and ten times as many, beside rules whose rates are tuned.
    """

    name: ClassVar[str] = "learned-optimiser"
    judges_itself: ClassVar[bool] = True
    use: ClassVar[str] = """\
metatower evaluate {run} --seed 1   # judge it again, on fresh problems

import metatower
from metatower import Descend
learner = metatower.load("{run}")
mine = Descend(objective, learner.rule, steps=100)   # the rule on an objective of yours"""

    steps: int = 300
    rule: Literal["mlp", "lstm"] = "mlp"
    """The network: a small MLP on moving averages of the gradient, or an LSTM."""
    units: int = 8
    """Hidden units of the rule's network."""
    rescale: bool = True
    """Whether the rule sees every tensor in units in which its first gradient has a root mean square of 1."""
    inner_steps: int = 30
    """T: steps on a problem in training."""
    problems: int = 16
    """Problems per step of training."""
    rate: float = 0.1
    """Where the rule's step size starts."""
    power: float = 0.5
    """Where the power of the gradient's size starts that steps are in proportion to: 1 as in gradient descent."""
    rule_rate: float = 0.02
    """Adam's step size for the rule's numbers."""
    kinds: tuple[str, ...] = ("quadratic", "logistic")
    """Kinds of problem to learn from: quadratic, logistic, teacher."""
    held_out_kinds: tuple[str, ...] = ("teacher",)
    """Kinds of problem to be judged on, none of them learned from."""
    spread: tuple[float, float] = (1.0, 100.0)
    """Least and largest ratio of a problem's eigenvalues."""
    held_out_spread: tuple[float, float] = (300.0, 3000.0)
    """The same for problems of held-out ranges; above those of training."""
    noise: tuple[float, float] = (0.01, 0.1)
    """Least and largest noise, of the size of the targets; of logistic regression the share of wrong labels."""
    held_out_noise: tuple[float, float] = (0.2, 0.4)
    """The same for problems of held-out ranges; above that of training."""
    reach: float = 10.0
    """Each tensor is scaled by a factor from 1 / reach to reach; 1 for none."""
    width: tuple[int, int] = (5, 3)
    """Inputs and hidden units of the networks; a linear problem has inputs * units + 2 * units numbers."""
    examples: int = 128
    """Examples of a problem."""
    tuned_on: int = 128
    """Validation problems on which the rates of hand-made rules are chosen."""
    episodes: int = 128
    """Problems to be judged on, of each sort."""

    def check(self) -> None:
        super().check()
        self.at_least_one("units", "inner_steps", "problems", "examples", "tuned_on")
        self.above_zero("rate", "rule_rate")
        self.two_to_judge_on(self.episodes, "problems")
        if len(self.width) != 2:
            raise UserError(f"{self.name}: expected --width as two numbers, inputs and units, got {self.width}.")
        if both := sorted(set(self.kinds) & set(self.held_out_kinds)):
            raise UserError(
                f"{self.name}: expected --held-out-kinds that are not learned from, got {both[0]!r} in both."
            )
        for name in ("spread", "noise"):
            trained, held_out = getattr(self, name), getattr(self, f"held_out_{name}")
            if len(trained) != 2 or len(held_out) != 2 or held_out[0] <= trained[1]:
                raise UserError(
                    f"{self.name}: expected --{name} and --held-out-{name} as two numbers each, the held-out ones "
                    f"above the others, got {trained} and {held_out}."
                )

    def family(self, split: str) -> ProblemFamily:
        """Distributions of problems: "train", "ranges" (held-out ones) or "kinds" (held-out ones)."""
        ranges = split == "ranges"
        return ProblemFamily(
            self.held_out_kinds if split == "kinds" else self.kinds,
            self.held_out_spread if ranges else self.spread,
            self.held_out_noise if ranges else self.noise,
            self.reach,
            *self.width,
            self.examples,
        )

    def optimiser(self, rule: Rule | None = None) -> Descend:
        """Storey 0: a rule on a problem; the fresh learned one if none is given."""
        if rule is None:
            make: Any = learned_mlp if self.rule == "mlp" else learned_lstm
            rule = make(
                Positive(self.rate),
                key=fork(jax.random.key(self.seed), 1)[0],
                power=jnp.array(self.power),
                decay=jnp.array(0.0),
                units=self.units,
            )
            rule = rescaled(rule) if self.rescale else rule
        return Descend(Optimisee(*self.width), rule, self.inner_steps)

    def learner(self) -> Descend:
        top = anneal(clip(adam(self.rule_rate), TOP_CLIP), end=max(1, self.steps))
        # the loss at the start is the same for every rule: the gradient is that of the relative loss
        gradient = Clipped(RUN_CLIP, Lifelong(rising_weights(self.inner_steps), logarithm=True))
        return lift(self.optimiser(), top, batch=self.problems, gradient=gradient, learn=lambda learner: learner.rule)

    def data(self) -> Tasks:
        return Pooled(self.family("train"))

    def held_out(self) -> Tasks:
        return Pooled(self.family("kinds"))

    def judged_on(self) -> dict[str, Tasks]:
        """Problems by what is appended to the names of their rows."""
        return {
            " (fresh problems)": self.data(),
            " (held-out ranges)": Pooled(self.family("ranges")),
            " (held-out kinds)": self.held_out(),
        }

    def artefact(self, learner: Descend, state: State) -> Descend:
        return learner.result(state).learner

    def conclude(self, artefact: Descend, folder: Path, show: Progress) -> Conclusion:
        del folder
        short, long = self.inner_steps, LONGER * self.inner_steps
        after = sorted({max(1, short // 2), short, long})
        tuned = self._tuned(short, long, show)
        contestants = {OURS: artefact.rule, **tuned, FROZEN: self.optimiser().rule}
        conclusion = Conclusion(notes=self._notes())
        for label, tasks in self.judged_on().items():
            drawn, found = _problems(tasks, episode_keys(self.seed, 0, self.episodes)), {}
            show.start(f"judging{label}", len(contestants))
            for name, rule in contestants.items():
                found[name] = np.asarray(_along(self.optimiser(rule), drawn, long))
                show.advance(1)
                for steps in after:
                    self._add(conclusion, name, steps, label, found[name])
            show.finish()
            for steps in after:
                others = [f"{name}, {_steps(steps)}{label}" for name in found if name != OURS]
                conclusion.compare(f"{OURS}, {_steps(steps)}{label}", *others)
            shown = np.unique(np.round(np.geomspace(1, long, 60)).astype(int))
            conclusion.figures[f"runs{len(conclusion.figures)}"] = Curves(
                f"Runs on problems by update rule{label}: mean of the {METRIC} after every step, with 95 % intervals "
                f"over problems. The rule was trained for runs of {short}; what lies beyond is extrapolation.",
                "steps",
                METRIC,
                {name: interval(values[:, shown]) for name, values in found.items()},
                x=shown,
            )
        return conclusion

    def judge_fresh(self, artefact: Descend, *, episodes: int | None, seed: int, show: Progress) -> Conclusion:
        del show
        count, short, long = episodes or self.episodes, self.inner_steps, LONGER * self.inner_steps
        conclusion = Conclusion(notes=[f"{count} problems of each sort; rates of hand-made rules are not tuned here."])
        for label, tasks in self.judged_on().items():
            drawn = _problems(tasks, episode_keys(seed, 0, count))
            for name, rule in {OURS: artefact.rule, FROZEN: self.optimiser().rule}.items():
                self._add(conclusion, name, short, label, np.asarray(_along(self.optimiser(rule), drawn, long)))
            conclusion.compare(f"{OURS}, {_steps(short)}{label}", f"{FROZEN}, {_steps(short)}{label}")
        return conclusion

    def _add(self, conclusion: Conclusion, name: str, steps: int, label: str, values: np.ndarray) -> None:
        conclusion.add(f"{name}, {_steps(steps)}{label}", {METRIC: values[:, steps]}, "problem", (METRIC,))

    def _tuned(self, short: int, long: int, show: Progress) -> dict[str, Rule]:
        """Hand-made rules by name, each at the rate that is best on validation problems after so many steps."""
        keys = episode_keys(self.seed_for(TUNING_SEED), 0, self.tuned_on)
        drawn, chosen = _problems(self.data(), keys), {}
        show.start("rates of hand-made rules", len(HAND_MADE))
        for name, make in HAND_MADE.items():
            rules = {rate: make(Constant(jnp.asarray(rate))) for rate in RATES}
            # one run tells of both lengths
            runs = {rate: np.asarray(_along(self.optimiser(rule), drawn, long)) for rate, rule in rules.items()}
            for steps in (short, long) if name == "Adam" else (short,):
                means = {rate: values[:, steps].mean() for rate, values in runs.items()}
                best = min(RATES, key=means.__getitem__)
                chosen[f"{name}, rate {best:g} (best at {steps})"] = rules[best]
            show.advance(1)
        show.finish()
        return chosen

    def _notes(self) -> list[str]:
        words = "in units of the first gradient of each tensor" if self.rescale else "as they are"
        return [
            f"{self.steps:,} steps of {self.problems} fresh problems each, {self.inner_steps} steps on every problem. "
            f"The rule sees gradients {words}. Seed {self.seed}.",
            f"Losses of problems differ by orders of magnitude. The rule is trained by their logarithms, and judged by "
            f"the {METRIC}: of the loss on the query over that before the first step. −1 is a tenth; a mean of it is "
            "the logarithm of a geometric mean. The noise is a part of a quadratic's loss, which no rule gets below. "
            f"A run that diverges counts as {CEILING:g}, as do all that are worse.",
            f"Judged on {self.episodes} problems of each sort, the same for all. Intervals are over problems, of one "
            "training run.",
            f"The rates of hand-made rules were the best of {', '.join(f'{rate:g}' for rate in RATES)} on "
            f"{self.tuned_on} validation problems of the training ranges and kinds. Each has one rate for all problems "
            "and steps. Those that are rescaled work in the units that the learned rule has, too.",
        ]


HAND_MADE: dict[str, Callable[[Any], Rule]] = {
    "Adam": adam,
    "momentum": momentum,
    "gradient descent": sgd,
    "Adam, rescaled": lambda rate: rescaled(adam(rate)),
    "momentum, rescaled": lambda rate: rescaled(momentum(rate)),
}


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count != 1)}"


@eqx.filter_jit
def _problems(tasks: Tasks, keys: Any) -> Task:
    """A problem for each key, stacked."""
    return jax.vmap(tasks.sample)(keys)


@eqx.filter_jit
def _along(learner: Descend, drawn: Task, steps: int) -> Any:
    """`METRIC` of every problem after 0, 1, ..., `steps` steps, `[problem, steps + 1]`; one program for all rates."""

    def run(task: Task):
        key_start, key_steps, key_query = fork(jax.random.key(0), 3)  # no problem has chance in it

        def judged(state):
            return learner.loss(state, task.query, key=key_query)[0]

        def step(state, index):
            state = learner.step(state, task.support, key=fork_at(key_steps, index))
            return state, judged(state)

        start = learner.start(key=key_start)
        losses = jax.lax.scan(step, start, jnp.arange(steps))[1]
        first = judged(start)
        relative = jnp.log10(jnp.concatenate([first[None], losses]) / first)
        return jnp.where(relative < CEILING, relative, CEILING)

    return jax.vmap(run)(drawn)
