"""XLA without its optimisations: for towers that take long to compile and no time to run."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax
from jax._src import compiler

SIMPLE = {"xla_cpu_use_fusion_emitters": False}
"""XLA's older emitter of fusions, whose code takes less time to compile where there are many gathers."""


@contextmanager
def quickly_compiled() -> Iterator[None]:
    """Programs compiled within are not optimised; afterwards all is as before, so that no other test runs slowly."""
    before, options = jax.config.read("jax_disable_most_optimizations"), compiler.get_compile_options
    jax.config.update("jax_disable_most_optimizations", True)
    compiler.get_compile_options = partial(_simply, options)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        compiler.get_compile_options = options


def _simply(options, *args, env_options_overrides=None, **rest):
    """The options of a program, its own before these."""
    return options(*args, env_options_overrides={**SIMPLE, **(env_options_overrides or {})}, **rest)
