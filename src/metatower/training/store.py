"""Trees of arrays on disk: safetensors named by key path, with a JSON record beside them. No pickle, no code."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import PyTree

from metatower.core.errors import UserError
from metatower.training.files import read_json, to_json, write_bytes, write_json

FORMAT = 1
SAID = "said"
"""In the metadata of the file of arrays: a digest of what is said about them. Older files have none."""


def save_arrays(path: Path, tree: PyTree, about: dict[str, Any] | None = None, *, record: str = "meta.json") -> None:
    """Writes the arrays of `tree` to `path`, and `about` with their names, shapes and checksum to `record` beside it.

    What is not an array (functions, sizes) is not written: `load_arrays` takes it from its `like`.

    Args:
        path: file to write, by custom `*.safetensors`.
        tree: any tree; typed PRNG keys are stored as the numbers behind them.
        about: anything JSON can hold.
        record: name of the JSON file.

    Raises:
        UserError: the disk refuses, or a leaf is of a kind that cannot be stored.
    """
    path = Path(path)
    content, listing = {}, {}
    for name, leaf in _named(tree)[0].items():
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        content[name] = np.ascontiguousarray(array).reshape(array.shape).view(_stored_as(array.dtype))
        listing[name] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    try:
        data = safetensors.numpy.save(content, {SAID: _digest(about or {})})
    except Exception as error:
        kinds = ", ".join(sorted({each["dtype"] for each in listing.values()}))
        raise UserError(f"Cannot store these arrays ({error}). Their types are {kinds}; use plain numbers.") from error
    write_bytes(path, data)
    arrays = {"file": path.name, "format": FORMAT, "sha256": hashlib.sha256(data).hexdigest(), "content": listing}
    write_json(path.parent / record, {**(about or {}), "arrays": arrays})


def load_arrays(path: Path, like: PyTree, *, record: str = "meta.json") -> tuple[PyTree, dict[str, Any]]:
    """`like` with its arrays replaced by those in `path`, and what was said `about` them.

    Args:
        path: a file that `save_arrays` wrote.
        like: a tree of the same structure; `jax.ShapeDtypeStruct`s will do for its arrays.
        record: name of the JSON file beside it.

    Raises:
        UserError: missing, truncated, foreign or changed files; other names, shapes or types than those of `like`.
    """
    path = Path(path)
    about = read_json(path.parent / record)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; its record {record} is there. Copy the whole folder.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        content = safetensors.numpy.load(data)
    except Exception as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}): truncated, damaged or foreign.") from error
    arrays = about.get("arrays")
    arrays = arrays if isinstance(arrays, dict) else {}
    if arrays.get("format") != FORMAT:
        raise UserError(
            f"{path.parent / record}: expected a record of format {FORMAT}, got {arrays.get('format')!r}: "
            "written by another program, or by another version of this one."
        )
    if hashlib.sha256(data).hexdigest() != arrays.get("sha256"):
        raise UserError(f"{path} is not the file that {record} describes (sha256 differs): changed or damaged.")
    said = _metadata(data).get(SAID)
    if said not in (None, _digest({name: each for name, each in about.items() if name != "arrays"})):
        raise UserError(
            f"{path.parent / record} was changed since {path.name} was written with it: what it says of these arrays "
            "cannot be trusted. Restore both, or train again."
        )
    wanted, rebuild = _named(like)
    _check_names(path, set(wanted), set(content))
    listing = arrays.get("content")
    return rebuild({name: _leaf(path, name, wanted[name], content[name], listing) for name in wanted}), about


def _digest(about: dict[str, Any]) -> str:
    """Of what is said about arrays, as a reader of the JSON finds it."""
    found = json.loads(to_json(about))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _metadata(data: bytes) -> dict[str, str]:
    """What a whole safetensors file says beside its arrays; its first eight bytes are the length of its JSON header."""
    found = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__")
    return found if isinstance(found, dict) else {}


def _leaf(path, name, like, array, listing):
    shape, dtype = list(like.shape), str(like.dtype)
    entry = listing.get(name) if isinstance(listing, dict) else None
    if not isinstance(entry, dict) or entry.get("shape") != shape or entry.get("dtype") != dtype:
        got = f"{entry.get('dtype')} {entry.get('shape')}" if isinstance(entry, dict) else "no such entry in its record"
        raise UserError(f"{path}: `{name}`: expected {dtype} {shape}, got {got}. Saved with other options?")
    if _is_key(like):
        data = jax.eval_shape(jax.random.key_data, like)
        if array.shape == data.shape and array.dtype == data.dtype:
            return jax.random.wrap_key_data(jnp.asarray(array), impl=_implementation(like))
    elif list(array.shape) == shape and array.dtype == _stored_as(like.dtype):
        array = array.view(like.dtype)
        return array if isinstance(like, np.ndarray | np.generic) else jnp.asarray(array)
    raise UserError(f"{path}: `{name}`: expected {dtype} {shape}, got {array.dtype} {list(array.shape)}.")


def _check_names(path, wanted, got):
    def some(names):
        names = sorted(names)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    if wanted != got:
        parts = [f"without {some(wanted - got)}"] if wanted - got else []
        parts += [f"with {some(got - wanted)} that should not be there"] if got - wanted else []
        raise UserError(f"{path} holds other arrays than expected: {'; '.join(parts)}. Saved with other options?")


def _named(tree):
    """Arrays by name, and the function that puts others in their places."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = {}
    for position, (path, leaf) in enumerate(flat):
        if isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "array"
            if name in names:
                raise ValueError(f"Two arrays of this tree have the name `{name}`. Use keys without dots.")
            names[name] = position

    def rebuild(arrays):
        leaves = [leaf for _, leaf in flat]
        for name, position in names.items():
            leaves[position] = arrays[name]
        return jax.tree_util.tree_unflatten(structure, leaves)

    return {name: flat[position][1] for name, position in names.items()}, rebuild


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored_as(dtype):
    # safetensors.numpy cannot read back NumPy's extension types (bfloat16, float8): their bits go as integers
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" and dtype.names is None else dtype


def _implementation(like):
    # `key_impl` takes arrays and tracers, but no ShapeDtypeStruct
    found = []
    jax.eval_shape(lambda key: found.append(str(jax.random.key_impl(key))), like)
    return found[0]
