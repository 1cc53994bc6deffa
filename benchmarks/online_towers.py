"""How much the starting rates matter to online towers of rules: `python -m benchmarks.online_towers [--quick]`.

A tower of height h is gradient descent whose log rate is moved while it runs by an RMS-normalised rule, whose log rate
is moved by another, ..., h of them (`metatower.rules.online`). Three sweeps of starting rates, each over five decades:

- "top": the rate of the highest rule; below it the base rate starts at 1e-4, far too small, and the others at 0.1.
  At height 0 the highest rule is the base rule.
- "bottom": the base rate, all others at 0.1.
- "all": one number for all of them.

Two problems: a network (1-32-32-1) that learns one function by 500 steps on all its points, judged by its loss then;
and sinusoid MAML (1-20-20-1, one inner step of rate 0.02, 4 tasks a step) of 300 meta-steps, judged on 100 fresh tasks.
On the network also with a tighter clamp ("tight"), and low towers without one ("no limit") and with plain gradient
descent on all levels ("plain").

A curve is flat if a newcomer may start anywhere, and worth it if it lies low. Of the median final losses along each
curve the report gives the spread (highest over lowest) and the price (their geometric mean over the lowest that *any*
tower on the problem reached); infinite where a median run does not end with a finite loss.

Writes `benchmarks/results/online-towers.json` and `online-towers.svg`. `--only tight` measures one kind again and
leaves the other rows of the file as they are.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine
from metatower import Descend, Positive, adam, lift, sgd
from metatower.core import Rule
from metatower.evaluation import interval
from metatower.nets import MLP, Examples, Supervised, squared_error
from metatower.rules import online
from metatower.tasks.functions import Sinusoids

RESULTS = Path(__file__).parent / "results"
HEIGHTS = (0, 1, 2, 5, 10, 30)
RATES = 10.0 ** np.linspace(-5, 0, 11)
BASE, MIDDLE, LIMIT = 1e-4, 0.1, 0.1
SHOWN = {"network": "tight", "maml": "clamped"}
"""The kind that is plotted."""
SWEEPS = ("top", "bottom", "all")
STEPS = {"network": 500, "maml": 300}
SEEDS = 8
KINDS = {"clamped": LIMIT, "tight": 0.03, "no limit": None, "plain": LIMIT}


def tower(kind: str, height: int, base, middle, top) -> Rule:
    """A rule with so many rules above it; `top` is the rate of the highest, the base rule's if there is no other."""
    rates = [base] + [middle] * (height - 1) + [top] if height else [top]
    above = [sgd(Positive(r)) if kind == "plain" else adam(Positive(r), b1=0.0, b2=0.9) for r in rates[1:]]
    return online(sgd(Positive(rates[0])), *above, limit=KINDS[kind])


def network(rule: Rule, key, steps: int):
    """The final loss of a small network that fits one sine with `rule` for `steps` steps."""
    key_net, key_run = jax.random.split(key)
    x = jnp.linspace(-5, 5, 64)[:, None]
    data = Examples(x, 2 * jnp.sin(x - 0.7))
    learner = Descend(Supervised(MLP((1, 32, 32, 1), key=key_net), squared_error), rule, steps)
    return learner.loss(learner.adapt(data, key=key_run), data, key=key_run)[0]


def maml(rule: Rule, key, steps: int):
    """The loss after a run of sinusoid MAML whose outer rule is `rule`."""
    key_net, key_run, key_judge = jax.random.split(key, 3)
    learner = Descend(Supervised(MLP((1, 20, 20, 1), key=key_net), squared_error), sgd(0.02))
    trainer = lift(learner, rule, batch=4, steps=steps, judged=100)
    return trainer.loss(trainer.adapt(Sinusoids(), key=key_run), Sinusoids(), key=key_judge)[0]


PROBLEMS = {"network": network, "maml": maml}


def measure(problem: str, kind: str, height: int, rates: np.ndarray, seeds: int, steps: int) -> list[dict]:
    """A row per sweep and rate; all sweeps and seeds are one program."""

    def one(base, middle, top, key):
        return PROBLEMS[problem](tower(kind, height, base, middle, top), key, steps)

    run = jax.jit(lambda settings, keys: jax.lax.map(lambda s: jax.vmap(lambda k: one(*s, k))(keys), settings))
    keys = jax.random.split(jax.random.key(0), seeds)
    n = len(rates)
    fixed = {"base": np.full(n, BASE), "middle": np.full(n, MIDDLE)}
    columns = {
        "top": (fixed["base"], fixed["middle"], rates),
        "bottom": (rates, fixed["middle"], fixed["middle"] if height else rates),
        "all": (rates, rates, rates),
    }
    settings = [jnp.asarray(np.concatenate(each), jnp.float32) for each in zip(*columns.values(), strict=True)]
    began = time.process_time()  # of this process alone, whoever else is busy
    compiled = run.lower(settings, keys).compile()
    compile_s = time.process_time() - began
    began = time.process_time()
    found = np.asarray(compiled(settings, keys), np.float64)
    took = time.process_time() - began
    rows = []
    for i, (sweep, rate) in enumerate((s, r) for s in columns for r in rates):
        losses = found[i]
        finite = losses[np.isfinite(losses)]
        logs = interval(np.log10(np.maximum(finite, 1e-12))) if len(finite) else None
        bounds = None if logs is None or len(finite) < 2 else [10**logs.lo, 10**logs.hi]
        rows.append(
            {
                "problem": problem, "kind": kind, "height": height, "sweep": sweep, "rate": float(rate),
                "median": float(np.median(np.where(np.isfinite(losses), losses, np.inf))),
                "geometric_mean": None if logs is None else 10**logs.mean, "ci95": bounds,
                "not_finite": int(seeds - len(finite)), "seeds": seeds,
            }
        )  # fmt: skip
    spent = f"compiled in {compile_s:5.1f} s of processor time, ran in {took:5.1f} s"
    print(f"{problem:8} {kind:9} height {height:2}: {spent}", flush=True)
    return [{**row, "compile_cpu_s": round(compile_s, 2), "run_cpu_s": round(took, 2)} for row in rows]


def flatness(rows: list[dict]) -> list[dict]:
    """For every curve, how flat it is and how far above the best of all."""
    found = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        mine = [row for row in rows if row["problem"] == problem]
        best = min(row["median"] for row in mine)
        for kind, sweep, height in dict.fromkeys((r["kind"], r["sweep"], r["height"]) for r in mine):
            curve = [r for r in mine if (r["kind"], r["sweep"], r["height"]) == (kind, sweep, height)]
            medians = np.array([row["median"] for row in curve])
            found.append(
                {
                    "problem": problem, "kind": kind, "sweep": sweep, "height": height,
                    "spread": _number(medians.max() / medians.min()), "lowest": float(medians.min()),
                    "price": _number(np.exp(np.mean(np.log(medians))) / best),
                    "not_finite": sum(row["not_finite"] for row in curve), "runs": sum(row["seeds"] for row in curve),
                }
            )  # fmt: skip
    return found


def _lines(report: dict) -> str:
    """JSON with a line per row of its tables."""
    parts = []
    for name, content in report.items():
        rows = isinstance(content, list)
        text = ",\n  ".join(json.dumps(row, allow_nan=False) for row in content) if rows else json.dumps(content)
        parts.append(f' "{name}": ' + (f"[\n  {text}\n ]" if rows else text))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def plot(rows: list[dict], path: Path) -> None:
    """Final loss against the swept rate, a line per height."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(len(PROBLEMS), len(SWEEPS), sharex=True, sharey="row", squeeze=False)
    for line, problem in zip(axes, PROBLEMS, strict=True):
        for ax, sweep in zip(line, SWEEPS, strict=True):
            for height in HEIGHTS:
                curve = [
                    r
                    for r in rows
                    if (r["problem"], r["kind"], r["sweep"], r["height"]) == (problem, SHOWN[problem], sweep, height)
                ]
                if not curve:
                    continue
                rates, medians = [r["rate"] for r in curve], [r["median"] for r in curve]
                ax.loglog(rates, medians, marker=".", label=f"height {height}")
                shown = [r for r in curve if r["ci95"]]
                ax.fill_between([r["rate"] for r in shown], *zip(*[r["ci95"] for r in shown], strict=True), alpha=0.12)
            ax.set(title=f"{problem}: {sweep}", xlabel="starting rate")
        line[0].set_ylabel("final loss")
    axes[0][-1].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: list[str]) -> None:
    """Measure, judge how flat, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few heights, rates, seeds and steps; no file written")
    parser.add_argument("--only", choices=KINDS, help="one kind; the file keeps its other rows")
    given = parser.parse_args(arguments)
    rates, seeds, heights = (RATES[::5], 2, HEIGHTS[:3]) if given.quick else (RATES, SEEDS, HEIGHTS)
    plan = [(problem, "clamped", h) for problem in PROBLEMS for h in heights]
    plan += [("network", "tight", h) for h in heights]
    plan += [("network", kind, h) for kind in ("no limit", "plain") for h in heights if 0 < h <= 5]
    plan = [each for each in plan if given.only in (None, each[1])]
    file, rows = RESULTS / "online-towers.json", []
    if given.only and not given.quick:
        kept = [row for row in json.loads(file.read_text())["rows"] if row["kind"] != given.only]
        rows = [{**row, "median": math.inf if row["median"] is None else row["median"]} for row in kept]
    for problem, kind, height in plan:
        steps = 20 if given.quick else STEPS[problem]
        rows += measure(problem, kind, height, rates, seeds, steps)
    found = flatness(rows)
    for each in found:
        spread, price = ("infinite" if each[x] is None else f"{each[x]:.3g}" for x in ("spread", "price"))
        print(
            f"{each['problem']:8} {each['kind']:9} {each['sweep']:7} height {each['height']:2}: spread {spread}, "
            f"price {price}, lowest {each['lowest']:.3g}; {each['not_finite']} of {each['runs']} runs not finite"
        )
    if not given.quick:
        about = {"command": "python -m benchmarks.online_towers", **machine()}
        rows = [{**row, "median": _number(row["median"])} for row in rows]
        file.write_text(_lines({**about, "flatness": found, "rows": rows}))
        plot(rows, RESULTS / "online-towers.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
