from collections import Counter

import jax
import pytest
from tests.quick import quickly_compiled

# before anything runs: the tests of sharding need more than one
jax.config.update("jax_num_cpu_devices", 3)


@pytest.fixture
def x64():
    """Double precision, for tests of mathematics only: the library itself runs in single."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def quick_compile():
    """What a test compiles is not optimised (`tests.quick`)."""
    with quickly_compiled():
        yield


@pytest.fixture(autouse=True)
def _few_programs():
    """The next test has room for its programs."""
    yield
    # imported here: what is imported before the tests begin goes without the checks of its annotations
    from metatower.training.runtime import forget_programs

    forget_programs(above=8_000)
    # what it would leave to all tests after it, in this process
    assert not jax.config.read("jax_disable_most_optimizations"), "a test left the optimisations of XLA switched off"


def pytest_terminal_summary(terminalreporter):
    """Where the time goes: seconds of each file, the longest first, over all processes."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                seconds[report.nodeid.split("::")[0]] += report.duration
    terminalreporter.section("seconds per file")
    terminalreporter.write_line(f"{sum(seconds.values()):7.0f}  all")
    for name, total in seconds.most_common(40):
        terminalreporter.write_line(f"{total:7.0f}  {name}")
