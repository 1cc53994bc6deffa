"""What a benchmark ran on, and what that machine can do at most."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np


def machine() -> dict:
    """Processor, cores and versions."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__}
    return {"cpu": cpu, "cores": os.cpu_count(), **versions}


def matmul_rate(side: int = 1536) -> float:
    """Floating-point operations a second of a large float32 matrix product on all cores."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((side, side)), jnp.float32)
    return 2 * side**3 / _fastest(jax.jit(lambda x: x @ x), x)


def bandwidth(mebibytes: int = 256) -> float:
    """Bytes a second that are read and written in a stream far larger than the caches, by one process."""
    x = np.zeros(mebibytes * 2**18, np.float32)
    y = np.empty_like(x)
    y[:] = x
    return 2 * x.nbytes / _fastest(lambda x: np.copyto(y, x), x)


def _fastest(run: Callable, x, times: int = 7) -> float:
    found = []
    for _ in range(times):
        before = time.perf_counter()
        jax.block_until_ready(run(x))
        found.append(time.perf_counter() - before)
    return min(found[1:])
