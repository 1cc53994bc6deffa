import dataclasses

import equinox as eqx
import jax
import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.tasks.episodes import Episodes

CLASSES, DRAWINGS = 12, 6


def pool(count=None, side=4, colour=()):
    """Pictures that say which they are: class, drawing and a corner that shows the way up."""
    images = np.zeros((CLASSES, DRAWINGS, side, side, *colour), np.uint8)
    images[:, :, 1, 1] = np.arange(CLASSES).reshape(-1, 1, *[1] * len(colour))
    images[:, :, 1, 2] = np.arange(DRAWINGS).reshape(1, -1, *[1] * len(colour))
    images[:, :, 0, 0] = 255
    return images, np.full(CLASSES, DRAWINGS) if count is None else np.asarray(count)


def sampled(episodes, number=64):
    keys = jax.random.split(jax.random.key(0), number)
    task = eqx.filter_jit(lambda e: jax.vmap(e.sample)(keys))(episodes)
    return jax.tree.map(np.asarray, task)


def which(x):
    values = np.rint(x * 255).astype(int)
    return values[..., 1, 1], values[..., 1, 2]


def test_shapes_labels_and_scale():
    task = sampled(Episodes(*pool(), ways=5, shots=2, queries=3))
    assert task.support.x.shape == (64, 10, 4, 4)
    assert task.query.x.shape == (64, 15, 4, 4)
    assert task.support.x.dtype == np.float32
    assert task.support.x.max() == 1
    np.testing.assert_array_equal(task.support.y[7], np.repeat(np.arange(5), 2))
    np.testing.assert_array_equal(task.query.y[7], np.repeat(np.arange(5), 3))


def test_a_task_has_different_classes_and_no_picture_twice():
    task = sampled(Episodes(*pool(), ways=5, shots=2, queries=3))
    (support, shot), (query, asked) = which(task.support.x), which(task.query.x)
    for row in range(64):
        classes = support[row].reshape(5, 2)
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0].tolist())) == 5
        np.testing.assert_array_equal(np.repeat(classes[:, 0], 3), query[row])
        pictures = list(zip(support[row], shot[row], strict=True)) + list(zip(query[row], asked[row], strict=True))
        assert len(set(pictures)) == 25


def test_every_class_and_drawing_is_as_likely_under_every_label():
    task = sampled(Episodes(*pool(), ways=5, shots=1, queries=1), 4800)
    character, drawing = which(task.support.x)
    for label in range(5):
        counts = np.bincount(character[:, label], minlength=CLASSES)
        assert np.sum((counts - 400) ** 2 / 400) < 35  # 11 degrees of freedom: p about 2e-4
        counts = np.bincount(drawing[:, label], minlength=DRAWINGS)
        assert np.sum((counts - 800) ** 2 / 800) < 24


def test_ragged_classes_never_show_what_is_not_theirs():
    count = [3] + [DRAWINGS] * (CLASSES - 1)
    images, count = pool(count)
    images[0, 3:] = 99
    task = sampled(Episodes(images, count, ways=12, shots=1, queries=2), 200)
    character, drawing = which(np.concatenate([task.support.x, task.query.x], axis=1))
    assert 99 not in character
    assert set(drawing[character == 0].tolist()) == {0, 1, 2}
    assert set(drawing[character == 1].tolist()) == set(range(DRAWINGS))


def test_rotations_are_classes_of_their_own_and_turn_anticlockwise():
    images, count = pool(side=5)
    episodes = Episodes(images, count, ways=20, shots=1, queries=1, rotations=True)
    assert episodes.classes == 4 * CLASSES
    task = sampled(episodes, 16)
    seen = set()
    for row in range(16):
        ids = set()
        for support, query in zip(task.support.x[row], task.query.x[row], strict=True):
            turns = [t for t in range(4) if np.rot90(support, -t)[0, 0] == 1]
            assert len(turns) == 1
            assert np.rot90(query, -turns[0])[0, 0] == 1
            upright = np.rint(np.rot90(support, -turns[0]) * 255).astype(int)
            np.testing.assert_array_equal(upright, images[upright[1, 1], upright[1, 2]])
            ids.add((upright[1, 1], turns[0]))
        assert len(ids) == 20
        seen |= ids
    assert len(seen) == 4 * CLASSES


def test_colours_stay():
    task = sampled(Episodes(*pool(colour=(3,)), ways=3, shots=1, queries=2, rotations=True), 2)
    assert task.query.x.shape == (2, 6, 4, 4, 3)


drawn = eqx.filter_jit(lambda episodes, seed: episodes.sample(jax.random.key(seed)))


def test_same_key_same_task_and_sizes_can_be_replaced():
    episodes = Episodes(*pool(), queries=2)
    wider = dataclasses.replace(episodes, ways=10, shots=3)
    assert drawn(wider, 0).support.x.shape == (30, 4, 4)
    one, again = (drawn(episodes, 4) for _ in range(2))
    np.testing.assert_array_equal(one.query.x, again.query.x)
    other = drawn(episodes, 5)
    assert not np.array_equal(one.query.x, other.query.x)


def test_bad_sizes_are_one_clear_error():
    with pytest.raises(UserError, match="at most 12 ways"):
        Episodes(*pool(), ways=13, queries=1)
    with pytest.raises(UserError, match=r"Class 4 has 2 pictures.*need 4.*1 of 12"):
        Episodes(*pool([6, 6, 6, 6, 2, 6, 6, 6, 6, 6, 6, 6]), shots=1, queries=3)
    with pytest.raises(UserError, match="at least 2 ways"):
        Episodes(*pool(), ways=1, queries=1)
    with pytest.raises(UserError, match="square"):
        Episodes(pool()[0][:, :, :, :3], pool()[1], queries=1, rotations=True)
