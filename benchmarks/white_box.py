"""A guide of meta-training where the optimum is known: `python -m benchmarks.white_box [--quick]`.

Three runs whose best guide can be written down, each for a policy that is trained on other distributions than it is
judged on, by antithetic evolution strategies where it chooses bins, by the exact gradient where it moves rates alone:

- "tasks": a share q of the bins delivers pure noise, gradients of mean zero. Who never takes one of them needs
  1 − q times the meta-steps of who takes all bins in turn. Only the manager's choice of bins and routine is learned.
- "schedule": a quadratic whose gradients carry noise s² / B per number. The rate of step t that dynamic programming
  finds is u_t = v_t / (v_t + s² / B), where v_t is the expected square distance: 1 / v_{t+1} = 1 / v_t + B / s². s
  differs from distribution to distribution, and there is no adaptation to a task. Only the worker is learned.
- "inner rate": linear regression with one inner step from the mean of the weights. With K shots in d dimensions,
  weights of standard deviation s_w and noise s, the best rate is a* = K s_w² / ((K + d + 1) s_w² + s²). All four differ
  from distribution to distribution, so that every static rate loses something. Only the worker is learned.

Writes `benchmarks/results/white-box.json`, a row as soon as it is measured; `--only` measures one again.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from metatower import Descend, Objective, Task, Tasks, adam, anneal, clip, lift, sgd
from metatower.core import Gradient
from metatower.core.keys import fork
from metatower.evaluation import interval
from metatower.evaluation.episodes import adaptation_scores, episode_keys
from metatower.gradients import Evolution, Unrolled
from metatower.learners import Guided
from metatower.nets.controller import EXPLORE, FOCUS, GAIN, PER_BIN, ManagerWorker, set_out
from metatower.nets.schedulers import Exp3, Schedule
from metatower.tasks.binned import Binned
from metatower.training import train

RESULTS = Path(__file__).parent / "results"
BINS, SHARE = 8, 0.75
DIMENSIONS = 20
THRESHOLD = 0.1
"""Of the initial loss."""
BATCH = 8
NEVER = -9.0
"""Log of a proximal weight that does nothing."""


class Pull(Objective):
    """Half the squared distance to a target, or, where the data is junk, a number about 1 with a random slope."""

    w: Array

    def loss(self, data, *, key):
        target, slope, good = data
        useful, junk = 0.5 * jnp.mean((self.w - target) ** 2), 1 + jnp.mean(slope * self.w)
        return jnp.where(good, useful, junk), {}


class Targets(Binned):
    """Tasks that pull to one target, from the bins that are good; the others are noise."""

    target: Array
    good: Array
    noise: float = eqx.field(static=True, default=0.3)

    @property
    def bins(self) -> int:
        return len(self.good)

    def sample_from(self, which, key):
        keys = fork(key, 2)
        return Task(*((self._target(k), jax.random.normal(k, self.target.shape), self.good[which]) for k in keys))

    def _target(self, key):
        return self.target + self.noise * jax.random.normal(key, self.target.shape)


class Junk(Tasks):
    """Distributions of which a share of the bins is junk; judged without junk and without noise."""

    share: float = eqx.field(static=True)

    def sample(self, key):
        key_target, key_order = fork(key, 2)
        target = 1 + jax.random.normal(key_target, (DIMENSIONS,))
        good = jax.random.permutation(key_order, jnp.arange(BINS)) >= round(self.share * BINS)
        return Task(Targets(target, good), Targets(target, jnp.ones(BINS, bool), noise=0.0))


class Linear(Objective):
    """Half the mean squared error of a linear function."""

    w: Array

    def loss(self, data, *, key):
        x, y, weight = data
        return 0.5 * jnp.sum(weight * (x @ self.w - y) ** 2) / jnp.sum(weight), {}


class Regressions(Tasks):
    """K shots of d-dimensional regression: y = x·w + s ε with w ~ N(0, s_w² I); queries carry no noise."""

    shots: Array
    dimensions: Array
    noise: Array
    spread: Array

    def sample(self, key):
        key_w, key_x, key_noise, key_query = fork(key, 4)
        there = (jnp.arange(4) < self.dimensions).astype(jnp.float32)
        w = self.spread * there * jax.random.normal(key_w, (4,))
        x, query = there * jax.random.normal(key_x, (8, 4)), there * jax.random.normal(key_query, (8, 4))
        y = x @ w + self.noise * jax.random.normal(key_noise, (8,))
        counted = (jnp.arange(8) < self.shots).astype(jnp.float32)
        return Task((x, y, counted), (query, query @ w, jnp.ones(8)))

    def best(self):
        """a*."""
        square = self.spread**2
        return self.shots * square / ((self.shots + self.dimensions + 1) * square + self.noise**2)

    def excess(self, rate):
        """Expected error of a query after one step of this rate, per dimension."""
        k, d, square = self.shots, self.dimensions, self.spread**2
        return square * (1 - 2 * rate + rate**2 * (1 + (d + 1) / k)) + rate**2 * self.noise**2 / k


class Regression(Tasks):
    """Distributions of regressions: 1 to 8 shots, 1 to 4 dimensions, s of 0.1 to 6, s_w of 0.3 to 3."""

    def sample(self, key):
        keys = fork(key, 4)
        shots, dimensions = (jax.random.randint(k, (), 1, n + 1) for k, n in zip(keys[:2], (8, 4), strict=True))
        noise, spread = (
            jnp.exp(jax.random.uniform(k, (), minval=np.log(low), maxval=np.log(high)))
            for k, low, high in zip(keys[2:], (0.1, 0.3), (6.0, 3.0), strict=True)
        )
        world = Regressions(shots, dimensions, noise, spread)
        return Task(world, world)


class Quadratic(Tasks):
    """Tasks that pull to one target, each with noise of its own size: `tasks` of one distribution."""

    target: Array
    noise: Array

    def sample(self, key):
        keys = fork(key, 2)
        none = jnp.zeros_like(self.target)
        wanted = (self.target + self.noise * jax.random.normal(k, none.shape) for k in keys)
        return Task(*((each, none, jnp.array(True)) for each in wanted))


class Quadratics(Tasks):
    """Distributions of noise from 1 to 6, and targets of mean square 1; judged without noise."""

    def sample(self, key):
        key_target, key_noise = fork(key, 2)
        target = jax.random.normal(key_target, (DIMENSIONS,))
        noise = jnp.exp(jax.random.uniform(key_noise, minval=np.log(1.0), maxval=np.log(6.0)))
        return Task(Quadratic(target, noise), Quadratic(target, jnp.zeros(())))


def taught(guided: Guided, family: Tasks, parts, steps: int, rate: float, distributions: int, gradient: Gradient):
    """The guided learner with the given parts of its policy trained, and the seconds that took."""
    began = time.perf_counter()
    rule = anneal(clip(adam(rate), 1.0), end=steps)
    tower = lift(guided, rule, batch=distributions, gradient=gradient, learn=lambda g: parts(g.controller))
    return tower.result(train(tower, family, steps=steps, seed=0)).learner, time.perf_counter() - began


def states(guided: Guided, family: Tasks, episodes: int):
    """Distributions that nothing was trained on, and the states with which their runs end."""

    def one(key):
        key_task, key_run = fork(key, 2)
        task = family.sample(key_task)
        return task.support, guided.adapt(task.support, key=key_run)

    return jax.jit(jax.vmap(one))(episode_keys(7, 0, episodes))


def tasks(quick: bool) -> dict:
    """Speed-up to the threshold against all bins in turn."""
    learner = Descend(Pull(jnp.zeros(DIMENSIONS)), sgd(2.0))
    horizon = 16
    controller = ManagerWorker(24, key=jax.random.key(0), choices=1, default=0)
    guided = Guided(
        learner, sgd(2.0), controller, jnp.array([0.0, 0.0, NEVER]), steps=horizon, horizon=horizon, batch=BATCH,
        bins=BINS, every=1, choices=(1,), rewarded=True, judged=1,
    )  # fmt: skip
    family, clean = Junk(SHARE), Junk(0.0)
    ours, took = taught(
        guided,
        family,
        lambda c: (c.routine, c.look, c.score, c.plain),
        40 if quick else 150,
        0.05,
        4,
        Evolution(8, 0.1),
    )
    nothing = Schedule(jnp.array(0), jnp.zeros(3))

    def needed(policy, where=family, seed=1):
        runner = dataclasses.replace(ours, controller=policy, rewarded=False)
        losses = adaptation_scores(runner, where, episodes=50, seed=seed, steps=100, chunk=50)["loss"]
        below = losses <= THRESHOLD * losses[:, :1]
        return np.where(below.any(axis=1), below.argmax(axis=1), losses.shape[1])

    # what needs no training: the best on other distributions
    by_gain = [
        set_out(controller, 0, (0.0, 0.0, 0.0), EXPLORE, jnp.zeros(PER_BIN).at[GAIN].set(weight / controller.unit))
        for weight in (3.0, 10.0, 30.0, 60.0)
    ]
    bandits = [
        Exp3(*(jnp.asarray(x) for x in (rate, mixed, progress)), jnp.array(0), jnp.array(routine), jnp.zeros(3), BINS)
        for rate, mixed, progress, routine in itertools.product(
            (0.3, 1.0, 3.0), (0.01, 0.1), (0.0, 1.0), (EXPLORE, FOCUS)
        )
    ]
    thumb, bandit = (min(each, key=lambda policy: needed(policy, seed=2).mean()) for each in (by_gain, bandits))
    rows = {
        "guided": needed(ours.controller), "all bins in turn": needed(nothing), "oracle": needed(nothing, clean),
        "guided, before training": needed(controller), "rule of thumb, bins by gain, untrained": needed(thumb),
        "learning-progress bandit, tuned": needed(bandit),
    }  # fmt: skip
    speed = rows["all bins in turn"].mean() / rows["guided"].mean()
    gained = (rows["all bins in turn"] - rows["guided"]).mean() / (rows["all bins in turn"] - rows["oracle"]).mean()
    return {
        "name": "tasks", "share_of_junk": SHARE, "steps_to_threshold": {n: float(r.mean()) for n, r in rows.items()},
        "ci95": {n: [interval(r).lo, interval(r).hi] for n, r in rows.items()}, "speed_up": float(speed),
        "oracle_speed_up": float(rows["all bins in turn"].mean() / rows["oracle"].mean()),
        "by_formula": 1 / (1 - SHARE), "share_of_oracle_gain": float(gained), "distributions": 50,
        "trained_s": round(took, 1),
    }  # fmt: skip


def schedule(quick: bool) -> dict:
    """Which part of the gap between the best static rate and the best schedule of each distribution is closed."""
    horizon, middle = 32, 6**0.5
    noises = jnp.exp(jnp.linspace(0.0, jnp.log(6.0), 200))
    static = best_static(lambda u: jnp.mean(jnp.log(jax.vmap(lambda s: expected(u, s, horizon))(noises))), 0.005, 1.0)
    controller = ManagerWorker(24, key=jax.random.key(0), choices=1, default=0)
    guided = Guided(
        Descend(Pull(jnp.zeros(DIMENSIONS)), sgd(0.0)), sgd(DIMENSIONS * static), controller,
        jnp.array([0.0, 0.0, NEVER]), steps=horizon, horizon=horizon, batch=BATCH, bins=1, every=horizon, choices=(1,),
        rewarded=True, judged=1,
    )  # fmt: skip
    ours, took = taught(
        guided, Quadratics(), lambda c: (c.worker, c.change, c.reflex), 100 if quick else 600, 0.01, 32,
        Unrolled(remat=False),
    )  # fmt: skip
    where, ended = states(ours, Quadratics(), 500)
    keys = jax.random.split(jax.random.key(5), 500)

    def by(rates):
        """The log square distance at the end of runs whose rates are known beforehand."""

        def one(world, key):
            def step(w, now):
                u, key = now
                pull = world.target - w + world.noise / BATCH**0.5 * jax.random.normal(key, w.shape)
                return w + u * pull, None

            w, _ = jax.lax.scan(step, jnp.zeros(DIMENSIONS), (rates(world.noise), jax.random.split(key, horizon)))
            return jnp.log(jnp.mean((w - world.target) ** 2))

        return np.asarray(jax.vmap(one)(where, keys))

    along = jnp.arange(horizon)
    logs = {
        "guided": np.log(np.mean((np.asarray(ended.leaves[0]) - np.asarray(where.target)) ** 2, axis=1)),
        "best static rate": by(lambda noise: jnp.full(horizon, static)),
        # v_t / (v_t + s² / B), where 1 / v_t = 1 + t B / s²
        "schedule for the middle noise": by(lambda noise: 1 / (along + 1 + middle**2 / BATCH)),
        "oracle": by(lambda noise: 1 / (along + 1 + noise**2 / BATCH)),
    }
    means = {name: float(each.mean()) for name, each in logs.items()}
    return {
        "name": "schedule", "static_rate": static, "mean_log_distance": means,
        "ci95": {n: [interval(each).lo, interval(each).hi] for n, each in logs.items()},
        "recovered": recovered(means), "distributions": 500, "trained_s": round(took, 1),
    }  # fmt: skip


def expected(rate, noise, steps: int):
    """The expected square distance after steps of one rate, from 1."""
    v = jnp.ones(())
    for _ in range(steps):
        v = (1 - rate) ** 2 * v + rate**2 * noise**2 / BATCH
    return v


def inner_rate(quick: bool) -> dict:
    """Which part of the gap between the best static rate and each distribution's best rate is closed."""
    worlds = jax.vmap(lambda k: Regression().sample(k).support)(episode_keys(3, 0, 2000))
    static = best_static(lambda rate: jnp.mean(jnp.log(jax.vmap(lambda w: w.excess(rate))(worlds))), 0.01, 1.0)
    horizon = 30
    controller = ManagerWorker(24, key=jax.random.key(0), choices=1, default=0)
    guided = Guided(
        Descend(Linear(jnp.zeros(4)), sgd(static)), sgd(0.0), controller, jnp.array([0.0, 0.0, NEVER]), steps=horizon,
        horizon=horizon, batch=4 * BATCH, bins=1, every=horizon, choices=(1,), rewarded=True, judged=256,
    )  # fmt: skip
    ours, took = taught(
        guided,
        Regression(),
        lambda c: (c.worker, c.change, c.reflex),
        60 if quick else 400,
        0.004,
        16,
        Unrolled(remat=False),
    )
    where, ended = states(ours, Regression(), 500)
    rates = static * np.exp(np.asarray(ended.logs[:, 0]))
    excess = {
        "guided": jax.vmap(lambda w, a: w.excess(a))(where, jnp.asarray(rates)),
        "best static rate": jax.vmap(lambda w: w.excess(static))(where),
        "oracle": jax.vmap(lambda w: w.excess(w.best()))(where),
    }
    best = np.asarray(jax.vmap(lambda w: w.best())(where))
    logs = {name: float(jnp.mean(jnp.log(each))) for name, each in excess.items()}
    means = {name: float(jnp.mean(each)) for name, each in excess.items()}
    return {
        "name": "inner rate", "static_rate": static, "mean_log_excess": logs, "mean_excess": means,
        "recovered": recovered(logs), "recovered_of_the_mean": recovered(means), "distributions": 500,
        "correlation_of_log_rates": float(np.corrcoef(np.log(rates), np.log(best))[0, 1]),
        "trained_s": round(took, 1),
    }  # fmt: skip


def recovered(of: dict) -> float:
    """The share of the oracle's gain over the best static rate."""
    return (of["best static rate"] - of["guided"]) / (of["best static rate"] - of["oracle"])


def best_static(value, low: float, high: float) -> float:
    """The rate between two bounds at which `value` is least."""
    rates = jnp.exp(jnp.linspace(jnp.log(low), jnp.log(high), 400))
    return float(rates[jnp.argmin(jax.vmap(value)(rates))])


ALL = {"tasks": tasks, "schedule": schedule, "inner rate": inner_rate}


def main(arguments: list[str] | None = None) -> int:
    """Every white box, or one; the others stay as they are in the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less training; nothing is written")
    parser.add_argument("--only", choices=list(ALL), help="one of them; the others stay as they are in the file")
    options = parser.parse_args(arguments)
    path = RESULTS / "white-box.json"
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for name, run in ALL.items():
        if options.only in (None, name):
            rows[name] = run(options.quick)
            print(json.dumps(rows[name], indent=1), flush=True)
            if not options.quick:
                found = {"command": "python -m benchmarks.white_box", "rows": [rows[n] for n in ALL if n in rows]}
                path.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
