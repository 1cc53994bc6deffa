"""One second-order MAML meta-step by metatower: `python -m benchmarks.maml_step NET META STEPS SHOT QUERY`.

Inner loop, query loss, meta-gradient and SGD update of the initial weights, in float32, data in memory. Prints one JSON
line with seconds per meta-step; `benchmarks.speed` puts the PyTorch peers beside it.

NET: mlp (1-40-40-1), conv-stride (four 3x3 convolutions of 64 channels, stride 2) or conv-pool (stride 1, 2x2 max
pooling); the convolutional ones with batch-statistics norm, 5 ways, 28x28x1.
"""

import json
import resource
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import metatower as mt
from benchmarks import traffic
from metatower.core import Learner, Task, Tasks
from metatower.core.plan import plan
from metatower.core.sharding import Sharded, shard, spread
from metatower.learners import maml
from metatower.nets import MLP, ConvNet, Examples, Supervised, cross_entropy, squared_error
from metatower.training import runtime

NETS = ("mlp", "conv-stride", "conv-pool")
WAYS, OUTER_RATE = 5, 1e-3
INNER_RATE = {"mlp": 0.01, "conv-stride": 0.4, "conv-pool": 0.4}
KEY = 7


class InMemory(Tasks):
    """Tasks that were made beforehand, `[task, example, ...]`; one of them is drawn."""

    tasks: Task

    def sample(self, key):
        which = jax.random.bits(key) % len(self.tasks.support.x)
        return jax.tree.map(lambda x: x[which], self.tasks)


def data(net: str, meta: int, shot: int, query: int, dtype=np.float32) -> InMemory:
    """Random inputs, with the sine of them or classes in order as targets: as `torch_peers.py` has them."""
    random = np.random.default_rng(0)

    def examples(each):
        if net == "mlp":
            x = random.uniform(-5, 5, (meta, each, 1)).astype(dtype)
            return Examples(jnp.asarray(x), jnp.sin(jnp.asarray(x)))
        x = random.uniform(0, 1, (meta, WAYS * each, 28, 28, 1)).astype(dtype)
        y = np.tile(np.repeat(np.arange(WAYS, dtype=np.int32), each), (meta, 1))
        return Examples(jnp.asarray(x), jnp.asarray(y))

    return InMemory(Task(examples(shot), examples(query)))


def tower(net: str, meta: int, steps: int) -> mt.Descend:
    """MAML, second order, lifted by plain SGD."""
    key = jax.random.key(0)
    if net == "mlp":
        objective = Supervised(MLP((1, 40, 40, 1), key=key), squared_error)
        return mt.lift(maml(objective, INNER_RATE[net], steps=steps), mt.sgd(OUTER_RATE), batch=meta)
    objective = Supervised(ConvNet(WAYS, key=key, stride=2 if net == "conv-stride" else 1), cross_entropy)
    # one task at a time on each core: its working set stays in the cache
    return mt.lift(maml(objective, INNER_RATE[net], steps=steps), mt.sgd(OUTER_RATE), batch=meta, chunk=1)


def compiled(learner: Learner, tasks: Tasks, shared: bool = False):
    """The compiled step, a function of the state alone; the state that it starts from; the bytes that a step moves.

    It is shared between all devices where that is faster, or in any case if `shared`.
    """
    learner = shard(learner) if shared else spread(learner, tasks)
    state = learner.start(key=jax.random.key(0))
    if isinstance(learner, Sharded):
        state, tasks = learner.replicate((state, tasks))
    (moving, still), (fixed, rest) = (eqx.partition(x, eqx.is_array) for x in (state, (learner, tasks)))

    def step(moving, fixed):
        learner, tasks = eqx.combine(fixed, rest)
        after, _ = learner.update(eqx.combine(moving, still), tasks, key=jax.random.key(KEY))
        return eqx.filter(after, eqx.is_array)

    program = jax.jit(step, donate_argnums=0).lower(moving, fixed).compile()
    # the text is one device's program
    devices = learner.mesh.size if isinstance(learner, Sharded) else 1
    moved = traffic.count(program.as_text()) * devices
    return lambda moving: program(moving, fixed), moving, moved


def seconds(step, state, steps: int | None = None) -> list[float]:
    """Seconds of each meta-step after two that do not count: of so many, or as `torch_peers.py` counts."""
    for _ in range(2):
        state = jax.block_until_ready(step(state))
    found, began = [], time.time()
    while len(found) < (steps or 3) or (steps is None and time.time() - began < 6 and len(found) < 3000):
        before = time.perf_counter()
        state = jax.block_until_ready(step(state))
        found.append(time.perf_counter() - before)
    return found


def main(net: str, meta: int, steps: int, shot: int, query: int) -> dict:
    """The line to print: one configuration, compiled and timed."""
    tasks = data(net, meta, shot, query)
    began = time.perf_counter()
    learner = tower(net, meta, steps)
    step, state, moved = compiled(learner, tasks)
    compile_seconds = time.perf_counter() - began
    found = seconds(step, state)
    return {
        "lib": "metatower",
        "net": net,
        "meta": meta,
        "steps": steps,
        "shot": shot,
        "q": query,
        "median": float(np.median(found)),
        "min": min(found),
        "n": len(found),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "compile_s": round(compile_seconds, 2),
        "flops": plan(learner, tasks, compile=False).costs[0].flops,
        "bytes": moved,
    }


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:] if word.isdecimal() and int(word) > 0]
    if sys.argv[1:2] not in [[net] for net in NETS] or len(sys.argv) != 6 or len(numbers) != 4:
        sys.exit(f"usage: python -m benchmarks.maml_step {'|'.join(NETS)} META STEPS SHOT QUERY, numbers from 1")
    runtime.setup()
    print(json.dumps(main(sys.argv[1], *numbers)))
