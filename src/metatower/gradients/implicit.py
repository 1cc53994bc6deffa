"""Implicit gradients."""

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from metatower.core import Gradient, Learner, Scored, Task, run
from metatower.core.keys import fork


class Implicit(Gradient):
    """The gradient of the solution of the inner problem, however it was found.

    With r(φ, θ) = 0 at the solution, dφ/dθ = −(∂r/∂φ)⁻¹ ∂r/∂θ (Rajeswaran et al. 2019, lemma 1), by conjugate
    gradients on Hessian-vector products; memory is independent of the inner steps. Exact as far as the run has
    converged and the conjugate gradients have; everything that r depends on gets its gradient, the inner rate does not.
    First derivatives only: a storey above this one must not unroll it (`Evolution` there is right).

    For learners whose state has `leaves`, the solution; with `residual(leaves, data, *, key)`, the slope of the problem
    there; and with `at(leaves, data)`, the state of a run that ended there: see `learners.ImplicitMAML`.

    Args:
        iterations: of conjugate gradients; 5 in the paper.
    """

    iterations: int = eqx.field(static=True, default=5)

    def score(self, learner: Learner, task: Task, *, key: PRNGKeyArray) -> Scored:
        residual, at = getattr(learner, "residual", None), getattr(learner, "at", None)
        if residual is None or at is None:
            raise TypeError(
                f"Implicit: {type(learner).__name__} does not say which equation its run solves (no `residual`). "
                "Use `ImplicitMAML(objective)` in place of `maml(objective)`, or `gradient=Unrolled()`."
            )
        key_adapt, key_query = fork(key, 2)
        end = jax.lax.stop_gradient(run(learner, task.support, key=key_adapt).leaves)
        key_residual = fork(key_adapt, 2)[0]

        def slope(leaves):
            return residual(leaves, task.support, key=key_residual)

        def curvature(direction):
            return jax.jvp(slope, (end,), (direction,))[1]

        def solve(matvec, b):
            return jax.scipy.sparse.linalg.cg(matvec, b, maxiter=self.iterations, tol=0.0)[0]

        # zero in value; in its derivative, minus what the residual does when the leaves move
        change = [jax.lax.stop_gradient(r) - r for r in slope(end)]
        moved = jax.lax.custom_linear_solve(curvature, change, solve, symmetric=True)
        solution = [e + m for e, m in zip(end, moved, strict=True)]
        return learner.loss(at(solution, task.support), task.query, key=key_query)
