"""Checkpoints: all that a run needs to go on with the same bits, in folders that are either whole or absent."""

import importlib.metadata
import json
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from metatower.core.errors import UserError
from metatower.training.files import new_folder, read_json, to_json
from metatower.training.store import load_arrays, save_arrays

_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a run's folder, as (step, path), oldest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in Path(folder).glob("checkpoint-*") if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def save(folder: Path, state: PyTree, *, step: int, seed: int, config: dict[str, Any] | None, keep: int = 2) -> Path:
    """Writes `folder/checkpoint-<step>/` and removes all but the newest `keep`.

    Args:
        step: steps that led to `state`.
        seed: the run's seed; with `step` it says which tasks come next.
        config: what the run was started with; `restore` insists on the same.

    Raises:
        UserError: the disk refuses; earlier checkpoints are then still whole.
    """
    path = Path(folder) / f"checkpoint-{step}"
    about = {"step": step, "seed": seed, "config": config, "versions": versions()}
    with new_folder(path) as temporary:
        save_arrays(temporary / "state.safetensors", state, about)
    # those newer than this one are of a run that was taken back by hand: leave them to its owner
    for _, old in [each for each in checkpoints(folder) if each[0] < step][: -(keep - 1) or None]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def restore(
    folder: Path, like: PyTree, *, seed: int, config: dict[str, Any] | None
) -> tuple[int, PyTree, dict[str, Any]] | None:
    """Step, state and record of the newest checkpoint in `folder`; None if there is none.

    Args:
        like: a state of the right structure; `jax.ShapeDtypeStruct`s will do for its arrays.
        seed, config: of the run that wants to go on.

    Raises:
        UserError: the checkpoint is of another run, or damaged.
    """
    if not (found := checkpoints(folder)):
        return None
    step, path = found[-1]
    older = f" Remove {path.name} to continue from {found[-2][1].name}." if len(found) > 1 else ""
    try:
        about = read_json(path / "meta.json")
    except UserError as error:
        raise UserError(f"{error}{older}") from error
    if about.get("step") != step or "arrays" not in about:
        raise UserError(f"{path} is not a checkpoint of this library: its meta.json does not say step {step}.")
    if about.get("seed") != seed:
        raise UserError(
            f"{folder} holds a run with seed {about.get('seed')}, but seed {seed} was asked for. "
            "Use that seed to continue it, or another folder."
        )
    asked = json.loads(to_json(config))
    if about.get("config") != asked:
        raise UserError(
            f"{folder} holds a run with other options: {_difference(about.get('config'), asked)}. "
            "Use the same options to continue it, or another folder."
        )
    try:
        state, about = load_arrays(path / "state.safetensors", like)
    except UserError as error:
        raise UserError(f"{error}{older}") from error
    return step, state, about


def versions() -> dict[str, str]:
    """What the bits of a result depend on besides seed and options."""
    packages = {name: importlib.metadata.version(name) for name in ("metatower", "jax", "jaxlib", "equinox", "numpy")}
    devices = f"{jax.device_count()} x {jax.default_backend()}"
    return {**packages, "python": platform.python_version(), "devices": devices}


def _difference(old, new, name="") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for each in [*old, *(n for n in new if n not in old)]:
            if each not in old or each not in new or old[each] != new[each]:
                inner = f"{name}.{each}" if name else each
                return _difference(old.get(each), new.get(each), inner)
    return f"{name or 'config'} was {to_json(old)}, now {to_json(new)}"
