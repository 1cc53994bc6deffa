"""Do metatower and PyTorch find the same meta-gradient? `python -m benchmarks.agreement PYTHON CONFIGURATION`.

PYTHON is an interpreter with PyTorch, CONFIGURATION is NET META STEPS SHOT QUERY. Both differentiate the step that
`benchmarks.maml_step` times, in float64, at the same weights, on the same tasks; one JSON line says how far apart their
gradients are, as the norm of the difference over the norm of PyTorch's.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from benchmarks.maml_step import INNER_RATE, KEY, NETS, data, tower
from metatower.core import pick
from metatower.core.keys import fork


def to_torch(net: str, leaves: list) -> list[np.ndarray]:
    """Weights or gradients in PyTorch's layout: outputs first, and channels before rows and columns."""
    found = [np.asarray(leaf) for leaf in leaves]
    turned = [x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T for x in found]
    if net != "mlp":
        outputs, side = turned[-2].shape[0], int((turned[-2].shape[1] // 64) ** 0.5)
        turned[-2] = turned[-2].reshape(outputs, side, side, 64).transpose(0, 3, 1, 2).reshape(outputs, -1)
    return turned


def difference(python: str, net: str, meta: int, steps: int, shot: int, query: int) -> float:
    """The relative error of the meta-gradient, of all weights together."""
    learner, tasks = tower(net, meta, steps), data(net, meta, shot, query, np.float64)
    state = learner.start(key=jax.random.key(0))
    found = eqx.filter_jit(learner.stages)(state, tasks, key=jax.random.key(KEY))
    gradient = to_torch(net, list(found["gradient"].values()))

    # the tasks that the step drew: a key each, of which the first half chooses the task
    keys = fork(jax.random.key(KEY), meta)
    drawn = jax.vmap(lambda key: tasks.sample(fork(key, 2)[0]))(keys)
    examples = {"sx": drawn.support.x, "sy": drawn.support.y, "qx": drawn.query.x, "qy": drawn.query.y}
    examples = {name: np.asarray(x) for name, x in examples.items()}
    if net != "mlp":
        images = {name: examples[name].transpose(0, 1, 4, 2, 3) for name in ("sx", "qx")}
        examples = images | {name: examples[name].astype(np.int64) for name in ("sy", "qy")}
    weights = {f"p{i}": x for i, x in enumerate(to_torch(net, pick(learner.objective)))}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(source, net=net, steps=steps, rate=INNER_RATE[net], **weights, **examples)
        script = Path(__file__).with_name("torch_gradient.py")
        subprocess.run([python, str(script), str(source), str(target)], check=True)
        theirs = np.load(target)
        theirs = [theirs[f"g{i}"] for i in range(len(gradient))]
    apart = sum(np.sum((a - b) ** 2) for a, b in zip(gradient, theirs, strict=True))
    return float((apart / sum(np.sum(b**2) for b in theirs)) ** 0.5)


if __name__ == "__main__":
    if len(sys.argv) != 7 or sys.argv[2] not in NETS:
        sys.exit(f"usage: python -m benchmarks.agreement PYTHON {'|'.join(NETS)} META STEPS SHOT QUERY")
    jax.config.update("jax_enable_x64", True)
    print(json.dumps({"gradient_error": difference(*sys.argv[1:3], *map(int, sys.argv[3:]))}))
