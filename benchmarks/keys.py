"""What the keyed hash of `core/keys.py` and `tasks/chance.py` saves in compile time: `python benchmarks/keys.py`.

Prints seconds to compile, the better of three, for 64 keys under `vmap`: JAX's own generator beside the hash.
"""

import time

import jax

from metatower.core.keys import fork
from metatower.tasks.chance import uniforms

PAIRS = {
    "two keys out of one": (lambda key: jax.random.split(key, 2), lambda key: fork(key, 2)),
    "100 uniform numbers": (lambda key: jax.random.uniform(key, (100,)), lambda key: uniforms(key, (100,))[0]),
}


def seconds(function, keys) -> float:
    """To compile `function` for all keys; the better of three."""
    found = []
    for _ in range(3):
        jax.clear_caches()
        lowered = jax.jit(jax.vmap(function)).lower(keys)
        began = time.perf_counter()
        lowered.compile()
        found.append(time.perf_counter() - began)
    return min(found)


if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 64)
    for name, (theirs, ours) in PAIRS.items():
        print(f"{name}: jax.random {seconds(theirs, keys):.3f} s, hash {seconds(ours, keys):.3f} s")
