"""A tower on many devices, used exactly as on one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray, PyTree

from metatower.core.contract import Data, Learner, Metrics, Scored, State
from metatower.core.plan import forward_flops
from metatower.core.tower import Expected

AXIS = "devices"
WHOLE = PartitionSpec()
WORTH, WORTH_APART = 5e6, 2e7
"""From how many forward floating-point operations for each device a step is shared: between the cores of a CPU in one
process (`python -m benchmarks.devices`), and in several, which take longer to find each other."""


class Sharded(Learner):
    """`tower`, whose tasks at one storey are spread over the devices of a mesh.

    The result is that of one device, up to the order of summation: the same tasks by the same keys. Every device holds
    the whole state; make it with `shard`.
    """

    tower: Any
    """The learner, with one of its `Expected` marked as shared over the mesh's axis."""
    mesh: Mesh = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def start(self, *, key: PRNGKeyArray) -> State:
        return self.tower.start(key=key)

    def update(self, state: State, data: Data, *, key: PRNGKeyArray) -> tuple[State, Metrics]:
        return self._together(lambda tower, state, data, key: tower.update(state, data, key=key), state, data, key)

    def step(self, state: State, data: Data, *, key: PRNGKeyArray) -> State:
        return self.update(state, data, key=key)[0]

    def loss(self, state: State, data: Data, *, key: PRNGKeyArray) -> Scored:
        return self._together(lambda tower, state, data, key: tower.loss(state, data, key=key), state, data, key)

    def _together(self, work, *arguments):
        return on_each(self.mesh, lambda tower, arguments: work(tower, *arguments), (self.tower, arguments))

    def replicate(self, tree: PyTree) -> PyTree:
        """`tree` with every array on every device of the mesh, where the compiled step wants it."""
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.device_put(arrays, NamedSharding(self.mesh, WHOLE)), rest)

    @property
    def height(self) -> int:
        return self.tower.height


def shard(tower: Learner, devices: int | None = None) -> Learner:
    """`tower` with the tasks of one storey spread over this many of JAX's devices (all, of all processes, if None).

    The storey is the one that leaves the fewest devices idle, and of equals the highest, where devices have to wait for
    each other least. A tower with no `Expected` that it descends is returned as it is, and so is any on one device.

    Raises:
        ValueError: more devices than there are; in several processes, another number than all.
    """
    there = jax.devices()
    number = len(there) if devices is None else devices
    if not 1 <= number <= len(there):
        raise ValueError(f"shard: expected 1 to {len(there)} devices, as JAX has so many, got {number}.")
    if number < len(there) and jax.process_count() > 1:
        raise ValueError(f"shard: several processes share all their {len(there)} devices, got {number}.")
    tasks = _tasks(tower)
    if number == 1 or not tasks:
        return tower
    best = max(range(len(tasks)), key=lambda storey: _share_at_work(tasks[storey], number))
    if jax.process_count() == 1:  # of several processes each has to take part, if only by repeating a task
        number = min(number, tasks[best])
        while _in_parts(tower, best) and tasks[best] % number:
            number -= 1
    if number == 1:
        return tower
    return Sharded(_marked(tower, best), mesh_of(there[:number]), tower.steps)


def on_each(mesh: Mesh, work: Callable[..., PyTree], whole: tuple, split: tuple = ()) -> PyTree:
    """`work(*whole, *split)` on every device of a mesh: what is split has a part of its first axis on each.

    The result is put together in the same way, or taken to be the same everywhere if nothing is split.
    """
    parts = PartitionSpec(AXIS)
    (whole_arrays, whole_rest), (split_arrays, split_rest) = (eqx.partition(x, eqx.is_array) for x in (whole, split))
    others = []

    def one(whole_arrays, split_arrays):
        out = work(*eqx.combine(whole_arrays, whole_rest), *eqx.combine(split_arrays, split_rest))
        out, other = eqx.partition(out, eqx.is_array)
        others.append(other)
        return out

    # unchecked: that all devices end with the same follows from the means they take, which JAX cannot see
    run = jax.shard_map(one, mesh=mesh, in_specs=(WHOLE, parts), out_specs=parts if split else WHOLE, check_vma=False)
    return eqx.combine(run(whole_arrays, split_arrays), others[-1])


def single(tree: PyTree) -> PyTree:
    """`tree`, of which all devices hold the same, in arrays of this process that are bound to no device."""

    def copy(x):
        if not isinstance(x, jax.Array):
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copy(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return jnp.asarray(np.asarray(x.addressable_data(0)))

    return jax.tree.map(copy, tree)


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh with these devices on its one axis."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def spread(tower: Learner, data: Data, devices: int | None = None) -> Learner:
    """`tower` shared over this many devices, as `shard` does it; if None over all, provided that it saves time.

    It does not where a step is over before the devices have found each other: see `WORTH`.
    """
    sharded = shard(tower, devices)
    if devices is not None or not isinstance(sharded, Sharded):
        return sharded
    work, least = forward_flops(tower, data), WORTH if jax.process_count() == 1 else WORTH_APART
    return tower if work is not None and work < least * sharded.mesh.size else sharded


def how_spread(tower: Learner, data: Data, devices: int | None = None) -> str:
    """One sentence: what `spread` does with this tower here, and why."""
    there = jax.device_count() if devices is None else devices
    spread_tower, tasks = spread(tower, data, devices), _tasks(tower)
    if isinstance(spread_tower, Sharded):
        marked, each = 0, spread_tower.tower
        while not _is_marked(each):
            marked, each = marked + 1, each.objective.learner
        return (
            f"Training shares the {tasks[marked]} tasks of a step of storey {each.height} between "
            f"{spread_tower.mesh.size} devices."
        )
    if there == 1:
        return "Training runs on one device."
    if not tasks:
        return f"Training runs on one of {there} devices: the tower has no tasks to share."
    work = forward_flops(tower, data) or 0.0
    return (
        f"Training runs on one of {there} devices: a step of {work:.1g} forward FLOPs is over before they have found "
        f"each other; below {WORTH:.0g} for each it does not pay. `--devices {there}` shares it all the same."
    )


def _tasks(tower: Any) -> list[int]:
    """Tasks per step of every storey that descends an `Expected`, from the top down to the first that does not.

    The parts of a learner that has some of its own (`Learner.parts`) are the last.
    """
    objective = getattr(tower, "objective", None)
    if isinstance(objective, Expected):
        return [objective.batch, *_tasks(objective.learner)]
    return [tower.parts] if tower.parts else []


def _share_at_work(tasks: int, devices: int) -> float:
    return tasks / (devices * -(-tasks // devices))


def _marked(tower: Any, storey: int) -> Any:
    """The tower with the `Expected` of the learner number `storey` from the top shared, or that learner itself."""
    objective = getattr(tower, "objective", None)
    if not isinstance(objective, Expected):
        return tower.shared_over(AXIS)
    if storey == 0:
        objective = dataclasses.replace(objective, shared=AXIS)
    else:
        objective = dataclasses.replace(objective, learner=_marked(objective.learner, storey - 1))
    return dataclasses.replace(tower, objective=objective)


def _is_marked(tower: Any) -> bool:
    objective = getattr(tower, "objective", None)
    return objective.shared is not None if isinstance(objective, Expected) else True


def _in_parts(tower: Any, storey: int) -> bool:
    """Whether the learner number `storey` from the top has parts of its own, which have to be of equal size."""
    for _ in range(storey):
        tower = tower.objective.learner
    return not isinstance(getattr(tower, "objective", None), Expected)
