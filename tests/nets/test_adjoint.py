import jax
import jax.numpy as jnp
import numpy as np

from metatower.nets.adjoint import with_transpose

A = jnp.arange(6.0).reshape(2, 3)
multiply = with_transpose(lambda x: (A @ x,), lambda y: (A.T @ y,))
wrong = with_transpose(lambda x: (A @ x,), lambda y: (5 * A.T @ y,))


def plain(x):
    return jnp.sum((A @ x) ** 3)


def ours(x, by=multiply):
    return jnp.sum(by(x)[0] ** 3)


X = jnp.array([1.0, -2.0, 0.5])


def test_derivatives_of_any_order_in_any_mode():
    for derivative in (jax.grad, jax.hessian, lambda f: jax.jacrev(jax.jacrev(jax.grad(f))), lambda f: jax.jacfwd(f)):
        np.testing.assert_allclose(derivative(ours)(X), derivative(plain)(X), rtol=1e-5)


def test_reverse_mode_uses_the_given_transpose():
    np.testing.assert_allclose(jax.grad(lambda x: ours(x, wrong))(X), 5 * jax.grad(plain)(X), rtol=1e-6)


def test_batches_on_any_axis_and_unbatched_arguments():
    add = with_transpose(lambda x, y: (x + 2 * y,), lambda z: (z, 2 * z))
    x, y = jnp.ones((3, 4)), jnp.arange(3.0)
    together = jax.vmap(lambda x, y: add(x, y)[0], (1, None))(x, y)
    np.testing.assert_allclose(together, jnp.broadcast_to(1 + 2 * y, (4, 3)))


def test_arguments_without_a_tangent_are_zeros():
    add = with_transpose(lambda x, y: (x + 2 * y,), lambda z: (z, 2 * z))
    assert jax.grad(lambda x: add(x, 3.0)[0])(1.0) == 1
    assert jax.jvp(lambda y: add(1.0, y)[0], (3.0,), (1.0,))[1] == 2
    assert jax.grad(lambda x: 0 * x + jax.lax.stop_gradient(add(x, x)[0]))(1.0) == 0
