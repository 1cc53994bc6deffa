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


@pytest.fixture(autouse=True)
def _few_programs():
    """The next test has room for its programs."""
    yield
    # imported here: what is imported before the tests begin goes without the checks of its annotations
    from metatower.training.runtime import forget_programs

    forget_programs()
