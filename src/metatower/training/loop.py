"""Training is running the top storey's `update` from the host, at every height."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from metatower.core.contract import Data, Learner, State
from metatower.core.errors import UserError
from metatower.core.forensics import still_finite
from metatower.core.sharding import Sharded, single, spread
from metatower.training import checkpoint, failure
from metatower.training.files import clean, make_folder, sole_user
from metatower.training.processes import agree
from metatower.training.progress import Progress, Silent
from metatower.training.records import Log, is_logged
from metatower.training.runtime import Stop
from metatower.training.start import own, start

LONGEST = 1024
"""Steps per dispatch at most: the length of the buffers that bring the metrics to the host."""
SECONDS = 1.0
"""Wall time that a dispatch aims at."""


class Interrupted(UserError):  # noqa: N818 (not an error)
    """A run that was asked to stop and has saved its state.

    Args:
        folder: where it continues from, None if it was not asked to save.
        step: steps done.
    """

    def __init__(self, folder: Path | None, step: int):
        where = f"saved in {folder}; the same call continues it" if folder else "nothing was saved: it had no folder"
        super().__init__(f"Stopped after step {step}: {where}.")
        self.folder, self.step = folder, step


def train(
    learner: Learner,
    data: Data,
    *,
    steps: int,
    seed: int,
    folder: Path | None = None,
    config: dict[str, Any] | None = None,
    title: str = "",
    show: Progress | None = None,
    checkpoint_every_seconds: float = 30.0,
    keep: int = 2,
    devices: int | None = None,
) -> State:
    """The state of `learner`, the top storey of a tower of any height, after `steps` updates on `data`.

    Step i uses the key `fold_in(key(seed), i)`, so which tasks it sees depends on nothing but (seed, i). Given a
    folder, the run saves itself there, and the same call continues it after any kind of end, to the same bits.

    Args:
        data: what `learner.update` takes: a `Tasks`, or arrays at storey 0.
        steps: updates in all, those of earlier calls included.
        folder: gets `checkpoint-<step>/` and `metrics.jsonl`; nothing is written if None.
        config: what else decides the result, in JSON's types; a folder is only continued with the same.
        title: shown beside the progress.
        show: silent if None.
        checkpoint_every_seconds: wall time between checkpoints; there is always one at the end.
        keep: how many checkpoints stay.
        devices: how many of JAX's devices share the tasks of a step (`metatower.core.sharding`); if None all of them
            where that is faster. With another number the result differs in the order of a few sums, no more.

    Raises:
        UserError: the folder is of another run, damaged, or not to be written to.
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        NonFinite: the loss or the state stopped being finite; the state before that is saved.
    """
    if steps < 0 or not 0 <= seed < 2**32 or keep < 1:
        raise UserError(f"train: expected steps >= 0, 0 <= seed < 2**32, keep >= 1; got {steps}, {seed}, {keep}.")
    show = Silent() if show is None else show
    with ExitStack() as stack:
        # first of all: what follows traces and compiles, where a plain Ctrl-C could get lost in a callback of JAX
        stop = stack.enter_context(Stop(show.note))
        done, state, log = 0, None, None
        if folder is not None:
            folder = make_folder(folder)
            stack.enter_context(sole_user(folder))
            clean(folder)
            like = eqx.filter_eval_shape(partial(start, learner, seed))
            if found := checkpoint.restore(folder, like, seed=seed, config=config):
                done, state, about = found
                if done > steps:
                    raise UserError(f"{folder} already holds step {done}, more than the {steps} asked for.")
                if about.get("versions") != checkpoint.versions():
                    show.note(f"{folder} was begun with other versions or devices: the last bits may differ.")
            log = Log(folder / "metrics.jsonl", done)
            stack.callback(log.close)
        worker, fixed, state = _placed(learner, data, start(learner, seed) if state is None else own(state), devices)
        if jax.process_count() > 1 and worker is learner:
            show.note("The steps are too short to be shared between processes: every process does all of them.")

        def save():
            if folder is None or log is None:
                return
            if checkpoint.checkpoints(folder)[-1:] != [(done, folder / f"checkpoint-{done}")]:
                log.sync()
                checkpoint.save(folder, state, step=done, seed=seed, config=config, keep=keep)

        show.start(title, steps, done)
        stack.callback(show.finish)
        saved, count = time.monotonic(), 1
        while done < steps:
            began, count = time.monotonic(), min(count, steps - done)
            state, buffers, finished, good = advance((worker, fixed, seed, done, count), state)
            wait(finished)
            finished, buffers = int(finished), jax.device_get(buffers)
            if log is not None:
                for i in range(finished):
                    if is_logged(done + i + 1, steps):
                        log.write(done + i + 1, {name: values[i] for name, values in buffers.items()})
                log.flush()
            done += finished
            show.advance(finished, **_means(buffers, finished))
            if finished < count:
                save()
                show.note(f"Step {done} is not finite. Doing it again in parts, to see where it goes wrong …")
                where = {"step": done, "seed": seed, "config": config, "folder": folder}
                raise failure.examine(learner, single(state), data, good, **where)
            count, leave = agree(_next_count(count, time.monotonic() - began), stop.asked)
            if leave:
                save()
                raise Interrupted(folder, done)
            if time.monotonic() - saved > checkpoint_every_seconds:
                save()
                saved = time.monotonic()
        save()
        if agree(count, stop.asked)[1]:  # while the last state was written: what follows may take long
            raise Interrupted(folder, done)
        return single(state) if isinstance(worker, Sharded) else state


def compile_ahead(learner: Learner, data: Data, *, devices: int | None = None, show: Progress | None = None) -> None:
    """Compiles what `train` will run with these arguments, or a learner that differs in its numbers only.

    Nothing is trained. In a thread of its own (`metatower.training.beside`) it saves the wait for the compiler.
    """
    with Stop((show or Silent()).note):  # as in `train`: a callback of JAX could lose a plain Ctrl-C
        worker, fixed, state = _placed(learner, data, start(learner, 0), devices)
        wait(advance((worker, fixed, 0, 0, 0), state)[2])


def _placed(learner: Learner, data: Data, state: State, devices: int | None) -> tuple[Learner, Data, State]:
    """The learner as its devices share it, with data and state where they want them."""
    worker = spread(learner, data, devices)
    if isinstance(worker, Sharded):
        state, data = worker.replicate((state, data))
    return worker, data, state


def wait(array: Any) -> None:
    """Waits for the device in small naps: inside JAX's own wait Python could not answer a second Ctrl-C."""
    nap = 1e-4
    while not array.is_ready():
        time.sleep(nap)
        nap = min(2 * nap, 0.02)


def advance(fixed: tuple, state: State) -> tuple[State, dict[str, Array], Array, PyTree]:
    """`count` updates in one dispatch; stops before the first whose loss or state is not finite.

    Args:
        fixed: (learner, data, seed, steps done, count).
        state: its memory is reused.

    Returns:
        The state after the last good step, the metrics of each step (`[LONGEST, ...]`), how many steps were good,
        and for each leaf whether it was finite after the last step tried.
    """
    learner, data, seed, done, count = fixed
    # from NumPy: of no device, so that any number of devices may take them
    return _advance((learner, data, np.uint32(seed), np.uint32(done), np.int32(count)), state)


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed, state):
    learner, data, seed, done, count = fixed
    root = jax.random.key(seed)
    arrays, rest = eqx.partition(state, eqx.is_array)

    # jitted so that it is traced once, though its shapes are asked for before the loop runs it
    @eqx.filter_jit
    def update(arrays, learner, data, key):
        state, metrics = learner.update(eqx.combine(arrays, rest), data, key=key)
        return eqx.filter(state, eqx.is_array), metrics

    after, metrics = eqx.filter_eval_shape(update, arrays, learner, data, root)
    _check_same(arrays, after)
    buffers = jax.tree.map(lambda x: jnp.zeros((LONGEST, *x.shape), x.dtype), metrics)

    def body(carry):
        i, arrays, buffers, _ = carry
        key = jax.random.fold_in(root, done + i.astype(jnp.uint32))
        after, metrics = update(arrays, learner, data, key)
        good = still_finite(arrays, after), jnp.isfinite(metrics.get("loss", 0.0))
        fine = jnp.all(jnp.stack(jax.tree.leaves(good)))
        buffers = jax.tree.map(lambda buffer, x: buffer.at[i].set(x), buffers, metrics)
        arrays = jax.tree.map(lambda old, new: jnp.where(fine, new, old), arrays, after)
        return i + fine, arrays, buffers, good

    def more(carry):
        i, _, _, good = carry
        return (i < count) & jnp.all(jnp.stack(jax.tree.leaves(good)))

    good = jax.tree.map(lambda _: jnp.array(True), arrays), jnp.array(True)
    i, arrays, buffers, good = jax.lax.while_loop(more, body, (jnp.int32(0), arrays, buffers, good))
    return eqx.combine(arrays, rest), buffers, i, good


def _check_same(before, after):
    def kinds(tree):
        flat, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {jax.tree_util.keystr(path): f"{leaf.dtype} {list(leaf.shape)}" for path, leaf in flat}

    old, new = kinds(before), kinds(after)
    for name in [*old, *new]:
        if old.get(name) != new.get(name):
            raise TypeError(
                f"A learner's `update` must return a state like the one that `start` returns, but `state{name}` "
                f"was {old.get(name, 'absent')} and became {new.get(name, 'absent')}."
            )


def _next_count(count: int, seconds: float) -> int:
    # at most fourfold at a time: the first dispatch also compiles, and says little
    return max(1, min(LONGEST, 4 * count, int(count * SECONDS / max(seconds, 1e-3))))


def _means(buffers, finished):
    return {
        name: float(np.mean(values[:finished]))
        for name, values in buffers.items()
        if finished and values.ndim == 1 and (name in ("loss", "return") or name.endswith("accuracy"))
    }
