"""A run whose numbers stopped being finite: what happened, where, and a folder that shows it again."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from metatower.core.contract import Data, Learner, State
from metatower.core.errors import UserError
from metatower.core.forensics import Fault, hex_of, locate, numbers_of
from metatower.training.checkpoint import versions
from metatower.training.files import new_folder, read_json, write_text
from metatower.training.start import start, step_key
from metatower.training.store import load_arrays, save_arrays

ADVICE = (
    "Try a lower rate at that storey, a clip (`clip(rule, 1.0)`), or other bounds on the tasks; `Positive` rates "
    "learned quickly can run away."
)
WORLDS = "Rewards are the environment's: look at what pays there."


class NonFinite(UserError):  # noqa: N818 (as in "non-finite value")
    """A loss or a state that is infinite or undefined.

    Args:
        message: one paragraph for a person.
        fault: the first bad number; None if the step was finite when it was done again.
        step: number of the step of the top storey, the first is 0.
        folder: the reproducer (for `replay`), None if the run had no folder.
    """

    def __init__(self, message: str, fault: Fault | None, step: int, folder: Path | None):
        super().__init__(message)
        self.fault, self.step, self.folder = fault, step, folder


def examine(
    learner: Learner,
    state: State,
    data: Data,
    good: tuple[PyTree, PyTree],
    *,
    step: int,
    seed: int,
    config: dict[str, Any] | None,
    folder: Path | None,
) -> NonFinite:
    """Does the bad step again to find where it went wrong, and writes `folder/reproducer/`.

    Args:
        state: before the bad step.
        good: which leaves of the state, and whether the loss, were finite after it.
        step: number of the bad step.
    """
    key = step_key(seed, step)
    leaf = _first(learner.named(good[0]))
    try:
        fault, why = locate(learner, state, data, key), "it was finite when it was done again outside the loop"
    except Exception as error:  # whatever a foreign learner may raise must not hide what is reported here
        fault, why = None, f"it could not be done again: {type(error).__name__}: {error}"
    found = f"First seen: {fault}. Steps and tasks are counted from 0." if fault else f"The step has no details: {why}."
    advice = WORLDS if fault and fault.what.startswith("rewards") else ADVICE
    message = (
        f"Non-finite {'loss' if not good[1] else 'state'} at storey {learner.height}, step {step} "
        f"(key {hex_of(numbers_of(key))}): leaf `{leaf}`. {found} {advice}"
    )
    if folder is None:
        return NonFinite(message, fault, step, None)
    reproducer = Path(folder) / "reproducer"
    about = {"step": step, "seed": seed, "key": numbers_of(key), "config": config, "versions": versions()}
    about["fault"] = None if fault is None else dataclasses.asdict(fault)
    try:
        with new_folder(reproducer) as temporary:
            save_arrays(temporary / "state.safetensors", state, about)
            write_text(temporary / "message.txt", _page(message))
    except UserError as error:
        return NonFinite(f"{message} No reproducer: {error}", fault, step, None)
    return NonFinite(f"{message} Reproducer: {reproducer}", fault, step, reproducer)


def replay(folder: Path, learner: Learner, data: Data) -> Fault | None:
    """Does the step that stopped a run again, from its reproducer.

    Args:
        folder: of the run, or its `reproducer`.
        learner, data: as given to `train`; changed ones show whether a cure would have helped.

    Returns:
        Where the first non-finite number arises; None if the step is finite now.

    Raises:
        UserError: no reproducer there, a damaged one, or one of a learner with another state.
    """
    folder = Path(folder)
    folder = folder / "reproducer" if (folder / "reproducer").is_dir() else folder
    about = read_json(folder / "meta.json")
    step, seed = about.get("step"), about.get("seed")
    if not (isinstance(step, int) and isinstance(seed, int) and "key" in about):
        raise UserError(f"{folder} is not a reproducer: its meta.json names no step, seed and key.")
    like = eqx.filter_eval_shape(partial(start, learner, seed))
    state, _ = load_arrays(folder / "state.safetensors", like)
    return locate(learner, state, data, step_key(seed, step))


def _first(good: PyTree) -> str:
    flat, _ = jax.tree_util.tree_flatten_with_path(good)
    bad = (jax.tree_util.keystr(path, simple=True, separator=".") for path, fine in flat if not np.asarray(fine))
    return next(bad, "loss")


def _page(message: str) -> str:
    return f"""{message}

To do the step again (`learner` and `data` as they were given to `train`):

    from metatower.training import replay
    print(replay("this folder", learner, data))

To make a key of the numbers in meta.json:

    jax.random.wrap_key_data(jax.numpy.array([first, second], jax.numpy.uint32))
"""
