"""What `metatower compare` is asked for, and how long each contestant trains so that all have the same compute."""

import dataclasses
import time
from dataclasses import dataclass, field

import numpy as np

from metatower.core.errors import UserError
from metatower.core.plan import step_flops
from metatower.recipes import feature_baselines
from metatower.recipes.families import FAMILIES, Family, base_recipe, family_recipe
from metatower.recipes.grounds import Ground
from metatower.tasks.pooled import Pooled
from metatower.training.loop import train
from metatower.training.progress import Progress

TRIED = 600
"""Steps of pooled MAML by which the machine's speed is measured: some seconds, which even out what else runs there."""
SETTING_UP = 25.0
"""Seconds that are kept for what happens once: imports, and compiling pooled MAML and its tuning."""
COMPILING = 80.0
"""Seconds that are kept for compiling each family: its step, and its runs and their judgement on each split. A guess,
for two idle cores and no compiled programs kept from before: on two of an AMD EPYC the steps alone took 30 to 90."""
MARGIN = 0.8
"""Of the time that is left, what is planned with: time per operation varies, and a plan is not made again."""
LEAST = 0.3
"""Of the whole time, what trainings and judgements get at least, however much is kept for compiling. So that a budget
which compiling alone would use up still gives a table, if a late one."""
BESIDES = 0.3
"""Of a family's operations, what its searches beside its steps may take at most."""
LEAST_TRAINING = 0.02
"""Of the whole time, what each contestant trains for at least, however long all is judged; likewise."""
SLOWER_RUNS = 2.0
"""Time per floating-point operation of runs that are only judged, against training pooled MAML. They work on few
distributions at a time, and every meta-step starts on the host. A guess, as that of `Family.slower`: what is wrong with
them makes a comparison shorter or longer than its budget, and its contestants as equal in compute as before."""
SLOWER_HEADS = 1.0
"""The same, of training a classifier by features: not measured, and so taken as that of pooled MAML."""
JUDGING = 1 / 8
"""Operations of judging one task at the end of a run, against a task of a meta-step: it takes no gradient of the whole,
and its inner steps are of the first order. A guess, too."""
TUNINGS = 20
"""Times that a tuning runs K meta-steps on its distributions: ten pairs of pooled MAML's outer rate and momentum, eight
schedules, and two for what differs from family to family."""
QUICK, FULL = (24, 12, 24, 32), (48, 24, 48, 64)
"""Validation distributions for tuning, held-out ones for runs of 10 K, held-out ones, and tasks of each to judge on.

As many as in the second place are worked on at the same time, always: other numbers are other programs to compile."""


@dataclass(frozen=True)
class Asked:
    """What is to be compared."""

    families: str = "functions"
    """The name of a ground, or the path of a Python file."""
    only: tuple[str, ...] = ()
    """Names from `FAMILIES`, all if empty."""
    seeds: tuple[int, ...] = (0,)
    minutes: float = 25.0
    """Wall time on two idle cores, all seeds together."""
    quick: bool = False
    """Judge on fewer distributions."""

    def check(self) -> None:
        """Refuses what cannot be, in a sentence (`UserError`)."""
        unknown = sorted(set(self.only) - set(FAMILIES))
        if unknown:
            raise UserError(f"There is no family {unknown[0]!r}. Choose from {', '.join(FAMILIES)}.")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise UserError(f"Expected --seeds as different numbers, got {' '.join(map(str, self.seeds))}.")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError(f"Expected --seeds from 0 to 2**32 - 1, got {' '.join(map(str, self.seeds))}.")
        if not (np.isfinite(self.minutes) and self.minutes > 0):
            raise UserError(f"Expected --budget as minutes above 0, got {self.minutes:g}.")

    def chosen(self, where: Ground) -> dict[str, Family]:
        """The families that take part: those that are asked for, and can do with the tasks and the network.

        Raises:
            UserError: none of them can.
        """
        asked = self._asked()
        fits = {name: each for name, each in asked.items() if self._lacks(each, where) is None}
        if not fits:
            reasons = "; ".join(f"{name}: {self._lacks(each, where)}" for name, each in asked.items())
            raise UserError(f"None of the families can take part ({reasons}). Compare others.")
        return fits

    def left_out(self, where: Ground) -> list[str]:
        """A sentence for each family that cannot take part."""
        lacks = {name: self._lacks(each, where) for name, each in self._asked().items()}
        return [f"{name} takes no part: {lack}." for name, lack in lacks.items() if lack is not None]

    def _asked(self) -> dict[str, Family]:
        return {name: each for name, each in FAMILIES.items() if not self.only or name in self.only}

    def _lacks(self, family: Family, where: Ground) -> str | None:
        """Why a family cannot take part."""
        if where.given and not family.any_network:
            return f"it makes its own network, and {self.families} gives one (`objective`)"
        if family.by_features and where.features is None:
            return "it classifies by features, and the tasks have no labels, or the network no features"
        return None


@dataclass(frozen=True)
class Planned:
    """How long each trains, so that all have the same compute; made once, and kept in `plan.json`."""

    flops: float
    """Floating-point operations that each contestant's training may take, its start included."""
    pooled_steps: int
    """Steps of pooled MAML from which the families set out."""
    pooled_total: int
    """Steps of pooled MAML as a baseline."""
    searched: int
    """Candidates of random search."""
    steps: dict[str, int]
    """Storey-2 steps of each family."""
    heads: dict[str, int]
    """Steps of each classifier by features, where tasks have labels."""
    head_start: int
    """Steps of the pooled Prototypical Network from which a family by features sets out."""
    evaluations: dict[str, int | None]
    """Base-learner gradient evaluations of each training; None where the tower does not tell."""
    tuned_on: int
    """Validation distributions that each candidate of a tuning is tried on."""
    far: int
    """Held-out distributions on which runs of 10 K steps are judged."""
    episodes: int
    """Held-out distributions of each kind, and for each seed."""
    judged: int
    """Tasks of each of them that a run is judged on."""
    spent: dict[str, float] = field(default_factory=dict)
    """Floating-point operations of each training: not the same for all where some cannot be that short."""
    lowered: dict[str, dict[str, int]] = field(default_factory=dict)
    """Options of families, where what these do beside their steps would take too much of a short training."""


def plan(asked: Asked, where: Ground, show: Progress) -> Planned:
    """Shares the time: the same number of floating-point operations for each, as this machine does them."""
    base, families = base_recipe(where, seed=asked.seeds[0]), asked.chosen(where)
    pooled, mixed = base._pooled_trainer(), Pooled(base.data())
    pooled_flops = step_flops(pooled, mixed)
    heads = {
        name: step_flops(feature_baselines.trainer(base, name, where.features(base.seed), 1), mixed)
        for name in feature_baselines.HEADS
        if where.features is not None
    }
    show.note("measuring how fast this machine is …")
    speed = pooled_flops * _steps_per_second(pooled, mixed)
    tuned_on, far, episodes, judged = QUICK if asked.quick else FULL
    a_run = base.meta_steps * step_flops(base.trainer(), base._one_of(base.data()))
    left = asked.minutes * 60 - SETTING_UP - COMPILING * len(families)
    left = MARGIN * max(left, LEAST * asked.minutes * 60) / len(asked.seeds)
    left -= SLOWER_RUNS * _judging(asked, where, base, a_run) / speed
    slower = [where.slower.get(name, family.slower) for name, family in families.items()]
    shares = 1 + SLOWER_RUNS + SLOWER_HEADS * len(heads) + sum(slower)
    flops = max(left, LEAST_TRAINING * asked.minutes * 60 / len(asked.seeds)) * speed / shares
    pooled_total = max(2, round(flops / pooled_flops))
    pooled_steps = max(1, round(where.start_share * pooled_total))
    trained = {name: max(1, round(flops / one)) for name, one in heads.items()}
    head_start = max(1, round(where.start_share * trained.get(feature_baselines.PROTOTYPES, 0)))
    steps, evaluations = {}, {"pooled MAML": pooled_total * base.pooled_batch * base.inner_steps}
    spent, lowered = {"pooled MAML": pooled_total * pooled_flops}, {}
    for name, family in families.items():
        recipe = family_recipe(name, where, seed=asked.seeds[0], searched_on=tuned_on)
        if options := recipe.lowered(BESIDES * flops):
            lowered[name], recipe = options, dataclasses.replace(recipe, **options)
        begun = pooled_steps if family.from_pooled else 0
        begun_flops = head_start * heads[feature_baselines.PROTOTYPES] if family.by_features else begun * pooled_flops
        steps[name] = max(1, round((flops - begun_flops - recipe.flops_besides()) / recipe.flops_of_step()))
        spent[name] = begun_flops + steps[name] * recipe.flops_of_step() + recipe.flops_besides()
        gradients = recipe.evaluations()
        start = begun * base.pooled_batch * base.inner_steps
        evaluations[name] = None if gradients is None else start + steps[name] * gradients
    searched = max(2, round(flops / (tuned_on * a_run)))
    spent["random search"] = searched * tuned_on * a_run
    met = base.meta_steps * base.meta_batch + base.judged
    evaluations["random search"] = searched * tuned_on * base.inner_steps * met
    return Planned(
        flops, pooled_steps, pooled_total, searched, steps, trained, head_start, evaluations, tuned_on, far, episodes,
        judged, spent, lowered,
    )  # fmt: skip


def _steps_per_second(trainer, data) -> float:
    train(trainer, data, steps=1, seed=0)  # compiled
    began = time.monotonic()
    train(trainer, data, steps=TRIED, seed=0)
    return TRIED / (time.monotonic() - began)


def _judging(asked: Asked, where: Ground, base, a_run: float) -> float:
    """Operations of all tunings and judgements of one seed."""
    tuned_on, far, episodes, judged = QUICK if asked.quick else FULL
    families, heads = len(asked.chosen(where)), 0 if where.features is None else len(feature_baselines.HEADS)
    judgement = a_run / base.meta_steps * judged / base.meta_batch * JUDGING
    # runs of all contestants with the judgements of their curves, and runs ten times as long of some
    each = episodes * (a_run + (base.meta_steps + 1) * judgement)
    contestants, long = 5 + 3 * families + heads, (1 if asked.quick else 4) + families
    return (
        len(where.judged) * (contestants * each + long * far * 10 * a_run) + (TUNINGS + 10 * heads) * tuned_on * a_run
    )
