import hashlib
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from metatower.core.errors import UserError
from metatower.training import load_arrays, save_arrays


def everything():
    return {
        "float": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
        "half": jnp.ones(3, jnp.bfloat16),
        "int": jnp.arange(3),
        "byte": jnp.arange(3, dtype=jnp.uint8),
        "bool": jnp.array([True, False]),
        "scalar": jnp.float32(jnp.nan),
        "none": jnp.zeros((0, 4)),
        "double": np.arange(3.0),
        "strided": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(3), 5),
        "other key": jax.random.key(3, impl="rbg"),
        "nested": [(jnp.ones(2),), None, "text", jnp.tanh],
    }


def test_round_trip(tmp_path):
    tree = everything()
    save_arrays(tmp_path / "a.safetensors", tree, {"step": 3, "note": "ü"})
    like = jax.tree.map(lambda x: x * 0 if isinstance(x, np.ndarray) else x, tree)
    loaded, about = load_arrays(tmp_path / "a.safetensors", like)
    assert about["step"] == 3
    assert about["note"] == "ü"
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree), strict=True):
        if isinstance(other, jax.Array | np.ndarray):
            assert one.dtype == other.dtype
            assert isinstance(one, np.ndarray) == isinstance(other, np.ndarray)
            if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
                one, other = jax.random.key_data(one), jax.random.key_data(other)
            assert np.asarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
        else:
            assert one is other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "meta.json"]
    assert "nested.0.0" in about["arrays"]["content"]


def test_double_precision(tmp_path):
    with jax.enable_x64(True):
        save_arrays(tmp_path / "a.safetensors", jnp.arange(3.0))
        loaded, about = load_arrays(tmp_path / "a.safetensors", jnp.zeros(3))
        assert loaded.dtype == jnp.float64
        assert list(about["arrays"]["content"]) == ["array"]
    with pytest.raises(UserError, match=r"expected float32 \[3\], got float64 \[3\]"):
        load_arrays(tmp_path / "a.safetensors", jnp.zeros(3))


@pytest.mark.parametrize("tree", [{}, None, {"a": None}, []])
def test_trees_without_arrays(tmp_path, tree):
    save_arrays(tmp_path / "a.safetensors", tree)
    assert load_arrays(tmp_path / "a.safetensors", tree)[0] == tree


def test_shapes_alone_are_enough(tmp_path):
    tree = {"w": jnp.ones((2, 3)), "key": jax.random.key(1)}
    save_arrays(tmp_path / "a.safetensors", tree, record="config.json")
    like = jax.eval_shape(lambda: tree)
    loaded, _ = load_arrays(tmp_path / "a.safetensors", like, record="config.json")
    assert (loaded["w"] == 1).all()
    assert loaded["key"] == tree["key"]


def damage(name):
    def rewrite(path, change):
        record = json.loads((path.parent / "meta.json").read_text())
        change(record)
        (path.parent / "meta.json").write_text(json.dumps(record))

    def flip(path):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    def pickled(path):
        path.write_bytes(pickle.dumps({"w": Bomb()}))

    return {
        "no record": lambda path: (path.parent / "meta.json").unlink(),
        "no file": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "cut header": lambda path: path.write_bytes(path.read_bytes()[:20]),
        "huge header": lambda path: path.write_bytes(b"\xff" * 64),
        "pickle": pickled,
        "flipped bit": flip,
        "folder": lambda path: (path.unlink(), path.mkdir()),
        "garbage record": lambda path: (path.parent / "meta.json").write_bytes(b"\xff{"),
        "deep record": lambda path: (path.parent / "meta.json").write_text("[" * 100_000),
        "list record": lambda path: (path.parent / "meta.json").write_text("[1]"),
        "foreign record": lambda path: (path.parent / "meta.json").write_text("{}"),
        "odd record": lambda path: rewrite(path, lambda record: record.update(arrays=3)),
        "later format": lambda path: rewrite(path, lambda record: record["arrays"].update(format=99)),
        "no listing": lambda path: rewrite(path, lambda record: record["arrays"].update(content=[1])),
        "other listing": lambda path: rewrite(path, lambda record: record["arrays"]["content"]["w"].update(shape=[6])),
    }[name]


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code was run",))


MESSAGES = {
    "no record": "There is no file",
    "no file": "Copy the whole folder",
    "empty": "not a whole safetensors file",
    "truncated": "not a whole safetensors file",
    "cut header": "not a whole safetensors file",
    "huge header": "not a whole safetensors file",
    "pickle": "not a whole safetensors file",
    "flipped bit": "sha256 differs",
    "folder": "Cannot read",
    "garbage record": "not valid JSON",
    "deep record": "not valid JSON",
    "list record": "expected a JSON object, got list",
    "foreign record": "format 1, got None",
    "odd record": "format 1, got None",
    "later format": "format 1, got 99",
    "no listing": "no such entry",
    "other listing": r"expected float32 \[2, 3\], got float32 \[6\]",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_damage_is_one_clear_sentence(tmp_path, name):
    path = tmp_path / "a.safetensors"
    tree = {"w": jnp.ones((2, 3))}
    save_arrays(path, tree)
    damage(name)(path)
    with pytest.raises(UserError, match=MESSAGES[name]) as caught:
        load_arrays(path, tree)
    assert "\n" not in str(caught.value)
    assert "a.safetensors" in str(caught.value) or "meta.json" in str(caught.value)


def test_what_is_said_about_arrays_cannot_be_changed_behind_their_back(tmp_path):
    path, tree = tmp_path / "a.safetensors", {"w": jnp.ones(3)}
    save_arrays(path, tree, {"options": {"rate": 0.1, "worst": float("nan"), "name": "é"}})
    assert load_arrays(path, tree)[1]["options"]["rate"] == 0.1
    record = json.loads((tmp_path / "meta.json").read_text())
    record["options"]["rate"] = 0.2
    (tmp_path / "meta.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"meta\.json was changed since a\.safetensors was written"):
        load_arrays(path, tree)


def test_files_without_a_digest_are_read(tmp_path):
    path, tree = tmp_path / "a.safetensors", {"w": np.ones(3, np.float32)}
    save_arrays(path, tree)
    data = safetensors.numpy.save(tree)
    path.write_bytes(data)
    record = json.loads((tmp_path / "meta.json").read_text())
    record["arrays"]["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "meta.json").write_text(json.dumps({**record, "added": 1}))
    assert load_arrays(path, tree)[1]["added"] == 1


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.ones((3, 2))}, r"`w`: expected float32 \[3, 2\], got float32 \[2, 3\]"),
        ({"w": jnp.ones((2, 3), jnp.int32)}, "expected int32"),
        ({"w": jax.random.key(0)}, r"expected key<fry> \[\]"),
        ({"v": jnp.ones((2, 3))}, "without v; with w that should not be there"),
        ({}, "with w that should not"),
        ({str(i): jnp.ones(1) for i in range(9)}, "without 0, 1, 2 and 6 more"),
    ],
)
def test_another_structure(tmp_path, like, message):
    save_arrays(tmp_path / "a.safetensors", {"w": jnp.ones((2, 3))})
    with pytest.raises(UserError, match=message):
        load_arrays(tmp_path / "a.safetensors", like)


def test_what_cannot_be_stored(tmp_path):
    with pytest.raises(UserError, match="Their types are <U1"):
        save_arrays(tmp_path / "a.safetensors", np.array(["a"]))
    with pytest.raises(ValueError, match="keys without dots"):
        save_arrays(tmp_path / "a.safetensors", {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
    assert list(tmp_path.iterdir()) == []
