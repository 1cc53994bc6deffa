import jax
import jax.numpy as jnp
from benchmarks import traffic


def program(f, *arguments) -> str:
    return jax.jit(f).lower(*arguments).compile().as_text()


def test_what_is_read_and_written_once():
    x = jnp.ones((100, 10))
    assert traffic.count(program(lambda x: 2 * x, x)) == 2 * x.nbytes


def test_a_loop_counts_as_often_as_it_runs():
    x, w = jnp.ones((64, 64)), jnp.ones((64, 64))

    def run(length):
        return lambda x, w: jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, length=length)[0]

    few, many = (traffic.count(program(run(length), x, w)) for length in (10, 110))
    # a step reads two matrices and writes one, and the sine reads one and writes one
    assert 100 * 4 * x.nbytes <= many - few <= 100 * 6 * x.nbytes
