"""Robots of Gymnasium in MuJoCo, with other physics: a task is what some fields of the model are multiplied by."""

from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    import gymnasium
    import mujoco
except ImportError as error:
    raise ImportError("This adapter needs MuJoCo: pip install 'metatower[mujoco]'.") from error

from metatower.core.errors import UserError


class Physics(gymnasium.Wrapper):
    """An environment of `gymnasium[mujoco]` whose physics are a task that is set, and stays, until the next is set.

    `HostTrial(Physics(gymnasium.make("HalfCheetah-v5"), {"body_mass": (0.5, 2.0)}), episodes=2)` is one world. A factor
    multiplies all entries of its field; derived quantities are computed anew.

    Args:
        env: has a MuJoCo model.
        vary: least and largest factor by the name of a field of `MjModel` ("body_mass", "dof_damping",
            "geom_friction", "actuator_gear", ...), or "gravity".

    Raises:
        UserError: no MuJoCo model, an unknown field, or bounds that are not positive and in order.
    """

    def __init__(self, env: gymnasium.Env, vary: Mapping[str, tuple[float, float]]):
        super().__init__(env)
        self.model: Any = getattr(env.unwrapped, "model", None)
        if not isinstance(self.model, mujoco.MjModel):
            raise UserError(f"Expected an environment with a MuJoCo model, got {env}.")
        for name, (low, high) in vary.items():
            if not 0 < low <= high:
                raise UserError(f"Expected positive factors in order for {name}, got {low} and {high}.")
        self.vary = {name: (float(low), float(high)) for name, (low, high) in vary.items()}
        self.original = {name: self._field(name).copy() for name in self.vary}
        self.task = dict.fromkeys(self.vary, 1.0)

    def sample_task(self, seed: int) -> dict[str, float]:
        """Factors, uniform in their logarithm."""
        random = np.random.default_rng(seed)
        return {name: float(np.exp(random.uniform(*np.log(bounds)))) for name, bounds in self.vary.items()}

    def set_task(self, task: Mapping[str, float]) -> None:
        """Changes the physics to these factors, of the fields in `vary`; of others not named here to 1."""
        if unknown := sorted(set(task) - set(self.vary)):
            raise UserError(f"Expected factors of {', '.join(self.vary)}, got {', '.join(unknown)}.")
        self.task = {name: float(task.get(name, 1.0)) for name in self.vary}
        for name, factor in self.task.items():
            self._field(name)[...] = self.original[name] * factor
            if name == "body_mass" and "body_inertia" not in self.vary:  # a denser body is harder to turn, too
                self.model.body_inertia[...] = self._inertia * factor
        mujoco.mj_setConst(self.model, self.env.unwrapped.data)

    def _field(self, name: str) -> Any:
        field = self.model.opt.gravity if name == "gravity" else getattr(self.model, name, None)
        if not isinstance(field, np.ndarray) or field.dtype != np.float64:
            raise UserError(f"A MuJoCo model has no field of numbers {name!r}; try body_mass, dof_damping or gravity.")
        if name == "body_mass" and not hasattr(self, "_inertia"):
            self._inertia = self.model.body_inertia.copy()
        return field
