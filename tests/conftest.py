import gc
from itertools import count
from pathlib import Path

import jax
import pytest

# before anything runs: the tests of sharding need more than one
jax.config.update("jax_num_cpu_devices", 3)


@pytest.fixture
def x64():
    """Double precision, for tests of mathematics only: the library itself runs in single."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def quick_compile():
    """XLA without optimisation: the towers of these tests take long to compile and no time to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


MAPS = Path("/proc/self/maps")
_finished = count()


@pytest.fixture(autouse=True)
def _few_programs():
    """Forgets compiled programs before there are too many.

    Each takes some mappings of memory, of which Linux allows a process 65,530; beyond that the compiler crashes.
    """
    yield
    if next(_finished) % 10 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()
