import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from metatower.learners import posdef
from metatower.learners.posdef import solve
from metatower.training.runtime import cores


def system(n: int, columns: int = 3, seed: int = 0):
    random = np.random.default_rng(seed)
    a = random.normal(size=(n, n + 2))
    return jnp.asarray(a @ a.T / n + 0.1 * np.eye(n)), jnp.asarray(random.normal(size=(n, columns)))


@pytest.mark.parametrize("n", [1, 2, 7, 65])
def test_it_solves(x64, n):
    a, b = system(n)
    np.testing.assert_allclose(solve(a, b), np.linalg.solve(a, b), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solve(a, b[:, 0]), np.linalg.solve(a, b[:, 0]), rtol=1e-9, atol=1e-9)


def test_in_single_precision_it_is_as_good_as_lapack():
    a, b = (x.astype(jnp.float32) for x in system(65))
    exact = np.linalg.solve(np.asarray(a, np.float64), np.asarray(b, np.float64))
    lapack = np.abs(jax.scipy.linalg.solve(a, b, assume_a="pos") - exact).max()
    assert np.abs(solve(a, b) - exact).max() < 2 * lapack + 1e-6


def test_derivatives_of_both_factors_and_orders(x64):
    a, b = system(4)

    def loss(shift, b):
        return jnp.sum(solve(a + shift * jnp.eye(4), jnp.asarray(b)) ** 3)

    check_grads(loss, (0.3, b), order=2, modes=("fwd", "rev"))


def test_large_systems_go_to_lapack(monkeypatch):
    monkeypatch.setattr(posdef, "SMALL", 3)
    assert "cholesky" in str(jax.make_jaxpr(solve)(*system(4)))
    assert "cholesky" not in str(jax.make_jaxpr(solve)(*system(3)))


EVALUATED = """
from metatower.training.runtime import setup
setup(2)
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from metatower.learners.posdef import solve

a = np.random.default_rng(0).normal(size=(50, 65, 70)).astype(np.float32)
mesh = Mesh(np.array(jax.devices()), "x")
a = jax.device_put(jnp.asarray(a @ a.transpose(0, 2, 1)), NamedSharding(mesh, PartitionSpec("x")))
both = jax.jit(jax.vmap(lambda a: solve(a, a[:, :5])))
for _ in range(100):
    both(a).block_until_ready()
print("done")
"""


@pytest.mark.skipif(cores() < 2, reason="needs two processor cores")
def test_two_devices_do_not_wait_for_each_other():
    """With LAPACK this hangs within the first calls, on two cores."""
    done = subprocess.run([sys.executable, "-c", EVALUATED], capture_output=True, text=True, timeout=200)
    assert done.stdout == "done\n", done.stderr
