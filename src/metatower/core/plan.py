"""What a tower will cost, storey by storey, before anything runs."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Generator

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from metatower.core.contract import Data, Learner
from metatower.core.describe import base_steps, storeys
from metatower.core.errors import UserError
from metatower.core.flops import count


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one step of one storey costs."""

    storey: int
    learner: str
    base_steps: int | None
    """Steps of the base learner inside; None where the tower does not tell."""
    flops: float
    """Floating-point operations, loops counted as often as they run."""
    temporary: int | None
    """Bytes of working memory, from XLA; None if it was not compiled."""
    arguments: int | None
    """Bytes of what goes in: learner, state, data."""
    outputs: int | None
    """Bytes of what comes out."""
    compile_seconds: float | None
    """Tracing and compiling, measured, without help of a cache."""
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The costs of a tower, from the top storey down; `str(plan)` is a table."""

    costs: tuple[Cost, ...]
    device: str

    def __str__(self) -> str:
        head = ("storey", "learner", "base steps", "FLOPs", "working memory", "in", "out", "compile")
        rows = [
            (
                str(cost.storey),
                cost.learner,
                "?" if cost.base_steps is None else f"{cost.base_steps:,}",
                scaled(cost.flops, 1000, ("", " k", " M", " G", " T", " P")),
                *(
                    "-" if size is None else scaled(size, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))
                    for size in (cost.temporary, cost.arguments, cost.outputs)
                ),
                "-" if cost.compile_seconds is None else f"{cost.compile_seconds:.1f} s",
            )
            for cost in self.costs
        ]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

        def line(cells: tuple[str, ...]) -> str:
            ends = (c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
            return "  ".join(ends).rstrip()

        notes = [f"storey {cost.storey}: {note}" for cost in self.costs for note in cost.notes]
        return "\n".join(
            [f"One step of each storey, on one device ({self.device}):", line(head), *map(line, rows), *notes]
        )


def plan(tower: Learner, tasks: Data, *, compile: bool = True) -> Plan:
    """What one step of every storey of `tower` costs: FLOPs, memory, compile time.

    Each storey is traced and compiled, never run; nothing of `tasks` is sampled, only its shapes are followed down.
    Memory and compile time are those of this machine's XLA, so a storey 3 takes its compile time to plan, often half
    a minute or more.

    Args:
        tower: any learner.
        tasks: what the top storey's `step` takes: a `Tasks`, or plain data at storey 0.
        compile: if False, FLOPs only, in a fraction of the time.

    >>> import jax
    >>> from metatower import Descend, lift, sgd
    >>> from metatower.nets import MLP, Supervised, squared_error
    >>> from metatower.tasks.functions import Sinusoids
    >>> maml = Descend(Supervised(MLP((1, 8, 1), key=jax.random.key(0)), squared_error), sgd(0.01))
    >>> costs = plan(lift(maml, sgd(0.01), batch=4), Sinusoids(), compile=False).costs
    >>> [cost.base_steps for cost in costs]
    [4, 1]
    """
    key = jax.random.key(0)
    learners = [learner for _, learner in storeys(tower)]
    data = [tasks]
    for above in learners[:-1]:
        data.append(_support(data[-1], key, above))
    numbers = reversed(range(len(learners)))
    costs = tuple(cost(*each, key, compile) for each in zip(learners, data, numbers, strict=True))
    return Plan(costs, jax.devices()[0].device_kind)


def _support(data: Data, key: PRNGKeyArray, above: Learner) -> PyTree:
    """The shapes of what one task of `data` gives to learn from."""
    if not callable(getattr(data, "sample", None)):
        raise TypeError(
            f"plan: expected the data of a {type(above).__name__} of height {above.height} to be a `Tasks` (with "
            f"`sample(key)`), got {type(data).__name__}. Give `plan` what the top storey's `step` takes."
        )
    return eqx.filter_eval_shape(lambda data, key: data.sample(key).support, data, key)


def forward_flops(tower: Learner, data: Data) -> float | None:
    """Floating-point operations of the base learner's steps in one step of `tower`, without tracing the whole tower.

    Less than `plan` counts, which sees the backward pass too. None where the tower does not tell its clocks.
    """
    steps, learners = base_steps(tower), [learner for _, learner in storeys(tower)]
    if steps is None:
        return None
    for above in learners[:-1]:
        data = _support(data, jax.random.key(0), above)
    return steps * count(_traced(learners[-1], data, jax.random.key(0)).jaxpr.jaxpr)[0]


def _traced(learner: Learner, data: PyTree, key: PRNGKeyArray) -> jax.stages.Traced:
    state = eqx.filter_eval_shape(lambda learner, key: learner.start(key=key), learner, key)
    dynamic, static = eqx.partition((learner, state, data), _is_shaped)

    def step(dynamic, key):
        learner, state, data = eqx.combine(dynamic, static)
        return eqx.filter(learner.update(state, data, key=key), eqx.is_array)

    step.__name__ = f"plan_{time.time_ns()}"  # a name of its own, so that no cache holds this program
    return jax.jit(step).trace(dynamic, key)


def step_flops(learner: Learner, data: Data) -> float:
    """Floating-point operations of one step of `learner` on `data`, recomputation for memory's sake included."""
    return cost(learner, data, 0, jax.random.key(0), compile=False).flops


def cost(learner: Learner, data: PyTree, storey: int, key: PRNGKeyArray, compile: bool) -> Cost:
    """What one step of `learner` on `data`, or on its shapes, costs; `storey` is for the table."""
    began = time.perf_counter()
    traced = _traced(learner, data, key)
    flops, notes = count(traced.jaxpr.jaxpr)
    memory = seconds = None
    if compile:
        with _past_the_cache():
            memory = traced.lower().compile().memory_analysis()
        seconds = time.perf_counter() - began
    sizes = (
        (None,) * 3
        if memory is None
        else (memory.temp_size_in_bytes, memory.argument_size_in_bytes, memory.output_size_in_bytes)
    )
    return Cost(storey, type(learner).__name__, base_steps(learner), flops, *sizes, seconds, notes)


@contextlib.contextmanager
def _past_the_cache() -> Generator[None, None, None]:
    """Compiled in here, programs are not written to JAX's persistent cache, where nobody would look for them."""
    option = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, option)
    jax.config.update(option, float("inf"))
    try:
        yield
    finally:
        jax.config.update(option, before)


def _is_shaped(leaf) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def parse_bytes(text: str) -> int:
    """Bytes of "512MB", "2 GiB" or "1e9"; M is 1024².

    Raises:
        UserError: anything else.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?)I?B?\s*", text.upper().replace("E", "e"))
    try:
        size = int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " ")) if found else 0
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise UserError(f"Expected an amount of memory such as 512MB or 2GB, got {text!r}.")
    return size


def scaled(number: float | int, base: int, units: tuple[str, ...]) -> str:
    """A number with the unit that makes it short."""
    power = 0
    while number >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    return f"{number:.3g}{units[power]}" if number < 1000 else f"{number:.0f}{units[power]}"
