"""Memory and time of the exact gradient against the length of the runs: `python -m benchmarks.memory [--quick]`.

Memory is the temporary memory that XLA reports for the compiled gradient, which does not depend on how busy the
machine is. Times are medians of calls in turn: of a gradient and the run that it is of, and of the methods that are
compared. Three storeys of gradients stand on each other: an MLP (1-64-64-64-1, 256 examples) learns by T gradient
steps (storey 0); its initial weights and a rate per array are learned by K meta-steps (storey 1); and what is measured
is one gradient by the initial weights and all rates (storey 2), on one task of one distribution. Where K is 0 there
are two storeys: the meta-gradient through T steps. Forward mode takes the gradient by the rates of one storey only.

Writes `benchmarks/results/memory.json` and `memory.svg` and says which targets are met.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from benchmarks.machine import machine
from metatower import Descend, Expected, lift, rates_for, sgd
from metatower.core import Unrolled, pick, put
from metatower.gradients import ForwardMode, MixedMode
from metatower.nets import MLP, Supervised, squared_error
from metatower.tasks.functions import FunctionFamily, Sinusoids

RESULTS = Path(__file__).parent / "results"
SIZES, EXAMPLES = (1, 64, 64, 64, 1), 256
LENGTHS = [2**i for i in range(9)]
INNER = 4
"""Inner steps where the meta-steps are varied."""
TARGET = (8, 4)
"""Inner steps and meta-steps at which methods are compared with reverse mode."""
TOO_BIG = 2 * 2**30
"""Bytes beyond which a method is compiled, and not run."""

PLAIN, KEPT, AGAIN = Unrolled(), Unrolled(remat=False), Unrolled(remat=True)
ROOT, KEPT_ROOT = Unrolled(remat=True, segment="sqrt"), Unrolled(remat=False, segment="sqrt")
MIXED = MixedMode(remat=False)

# what computes storey 0's gradient, storey 1's (through runs of storey 0), storey 2's (through runs of storey 1)
METHODS = {
    "reverse": (PLAIN, KEPT, KEPT),
    "remat": (PLAIN, AGAIN, AGAIN),
    "sqrt remat": (PLAIN, ROOT, ROOT),
    "mixed": (MIXED, KEPT, KEPT),
    "mixed + remat": (MIXED, KEPT, AGAIN),
    "mixed twice": (MIXED, MIXED, KEPT),
    "mixed twice + sqrt": (MIXED, MIXED, KEPT_ROOT),
    "mixed + sqrt remat": (MIXED, KEPT_ROOT, ROOT),
    "forward mode": (PLAIN, KEPT, ForwardMode()),
}
ONE_RUN = ("reverse", "remat", "sqrt remat", "mixed", "mixed + sqrt remat", "forward mode")


def programs(method: str, inner: int, outer: int):
    """The gradient of the top storey and, to compare its time with, the run it is the gradient of; jitted."""
    own, through, top = METHODS[method]
    net = Supervised(MLP(SIZES, key=jax.random.key(0)), squared_error)
    learner = Descend(net, sgd(rates_for(net, 0.01)), steps=inner, gradient=own)
    tasks = Sinusoids(EXAMPLES, EXAMPLES)
    if outer == 0:
        top = top if isinstance(top, ForwardMode) else through
    else:
        learner = lift(learner, sgd(jax.numpy.array(0.01)), steps=outer, gradient=through)
        tasks = FunctionFamily(shots=EXAMPLES, queries=EXAMPLES)
    objective = Expected(learner)
    learn = (lambda objective: objective.learner.rule) if isinstance(top, ForwardMode) else None

    def loss(leaves, key):
        return put(objective, leaves, learn).crossed_by(top).loss(tasks, key=key)

    def gradient(leaves, key):
        return top.estimate(loss, leaves, None, key=key)[1]

    return jax.jit(gradient), jax.jit(lambda leaves, key: loss(leaves, key)[0]), pick(objective, learn)


def in_turn(calls: list[Callable], patience: float) -> list[float]:
    """The median time of each of these calls, which take turns, over at most 50 rounds or so many seconds."""
    for call in calls:
        jax.block_until_ready(call())
    found, began = [], time.perf_counter()
    while not found or (time.perf_counter() - began < patience and len(found) < 50):
        found.append([])
        for call in calls:
            start = time.perf_counter()
            jax.block_until_ready(call())
            found[-1].append(time.perf_counter() - start)
    return [statistics.median(times) for times in zip(*found, strict=True)]


def measure(method: str, inner: int, outer: int, patience: float) -> tuple[dict, Callable]:
    """A row of the results: the bytes of a method at these lengths and, if they are not too many, its time.

    With the row, a call of the compiled gradient.
    """
    gradient, run, leaves = programs(method, inner, outer)
    arguments = leaves, jax.random.key(1)
    began = time.perf_counter()
    compiled = gradient.lower(*arguments).compile()
    compile_s = time.perf_counter() - began
    row = {"method": method, "inner": inner, "outer": outer, "learned": sum(leaf.size for leaf in leaves)}
    row["bytes"] = compiled.memory_analysis().temp_size_in_bytes
    row["compile_s"] = round(compile_s, 2)
    call = partial(compiled, *arguments)
    if row["bytes"] <= TOO_BIG and patience > 0:
        row["seconds"], row["run_seconds"] = in_turn([call, partial(run, *arguments)], patience)
    took = ""
    if "seconds" in row:
        took = f"{1000 * row['seconds']:9.1f} ms, {row['seconds'] / row['run_seconds']:.1f} x its run"
    print(f"T {inner:3} K {outer:3}  {method:19} {row['bytes'] / 2**20:9.2f} MiB  {took}", flush=True)
    return row, call


def side_by_side(patience: float) -> list[dict]:
    """The rows of the comparison with reverse mode; the methods take turns."""
    rows, calls = zip(*(measure(method, *TARGET, patience) for method in METHODS), strict=True)
    if patience > 0:
        for row, seconds in zip(rows, in_turn(list(calls), 10 * patience), strict=True):
            row["seconds_in_turn"] = seconds
            print(f"in turn: {row['method']:19} {1000 * seconds:9.1f} ms", flush=True)
    return list(rows)


def targets(rows: list[dict]) -> list[dict]:
    """The targets of the project, each with what was found."""
    found = []

    def say(target: str, what: str, met: bool):
        found.append({"target": target, "found": what, "met": bool(met)})

    def at(method, inner, outer):
        return next((r for r in rows if (r["method"], r["inner"], r["outer"]) == (method, inner, outer)), None)

    plain = at("reverse", *TARGET)
    exact = [r for name in METHODS if name not in ("reverse", "forward mode") if (r := at(name, *TARGET))]
    small = [r for r in exact if r["bytes"] <= plain["bytes"] / 20]
    shown = small or [min(exact, key=lambda r: r["bytes"])]
    if "seconds_in_turn" in plain:
        small = [r for r in small if r["seconds_in_turn"] <= plain["seconds_in_turn"]]

    def figures(row):
        time = row.get("seconds_in_turn", math.nan) / plain.get("seconds_in_turn", math.nan)
        return f"{row['method']}: 1/{plain['bytes'] / row['bytes']:.1f} of the memory, {time:.2f} of the time"

    say(
        "three storeys exact in at most 1/20 of reverse mode's memory, and not slower",
        "; ".join(map(figures, shown)),
        small,
    )
    for axis, name in (("inner", "inner steps"), ("outer", "meta-steps")):
        for method in METHODS:
            line = series(rows, method, axis)
            if ("sqrt" in method or "forward" in method) and {16, LENGTHS[-1]} <= line.keys():
                growth, longer = line[LENGTHS[-1]]["bytes"] / line[16]["bytes"], LENGTHS[-1] / 16
                what = f"x {growth:.1f} where the run is x {longer:.0f} longer"
                # the square root of the length, what a square-root schedule promises, or less
                say(f"memory sublinear in {name}: {method}", what, growth <= longer**0.5)
    for method in METHODS:
        timed = {n: row for n, row in series(rows, method, "outer").items() if "seconds" in row}
        if timed and method != "forward mode":
            row = timed[max(timed)]
            ratio = row["seconds"] / row["run_seconds"]
            say(
                f"through {row['outer']} meta-steps in at most 4 times their run: {method}",
                f"x {ratio:.2f}",
                ratio <= 4,
            )
    return found


def series(rows: list[dict], method: str, axis: str) -> dict[int, dict]:
    """The rows of a method by the length of the runs that vary: inner steps alone, or meta-steps."""
    own = [row for row in rows if row["method"] == method]
    if axis == "inner":
        return {row["inner"]: row for row in own if row["outer"] == 0}
    return {row["outer"]: row for row in own if row["outer"] and row["inner"] == INNER}


def plot(rows: list[dict], path: Path) -> None:
    """Working memory against the lengths of the runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, axis, title in ((left, "inner", "two storeys"), (right, "outer", f"three storeys, {INNER} inner steps")):
        for method in METHODS:
            line = series(rows, method, axis)
            axes.loglog(list(line), [row["bytes"] / 2**20 for row in line.values()], marker=".", label=method, base=2)
        axes.set(title=title, xlabel="inner steps" if axis == "inner" else "meta-steps", ylabel="working memory, MiB")
    right.legend(fontsize=7)
    figure.savefig(path)


def main(arguments: list[str]) -> None:
    """Measure, compare with the targets, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few lengths, no file written")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds to time each program; 0: memory only")
    given = parser.parse_args(arguments)
    lengths = [4, 16] if given.quick else LENGTHS
    rows = side_by_side(given.patience)
    rows += [measure(method, n, 0, given.patience)[0] for n in lengths for method in ONE_RUN]
    rows += [measure(method, INNER, n, given.patience)[0] for n in lengths for method in METHODS]
    found = targets(rows)
    for each in found:
        print("met   " if each["met"] else "MISSED", each["target"], "-", each["found"])
    if not given.quick:
        about = {"command": " ".join(["python -m benchmarks.memory", *arguments]), **machine()}
        (RESULTS / "memory.json").write_text(json.dumps({**about, "targets": found, "rows": rows}, indent=1) + "\n")
        plot(rows, RESULTS / "memory.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
