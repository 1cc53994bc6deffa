import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.tasks.attributes import ATTRIBUTES, NAMES, noise_table, ranges, render, softened
from metatower.tasks.glyph_families import CLASSES, GlyphFamily, glyph_family, script_family
from metatower.tasks.glyphs import SPLITS, glyphs
from metatower.tasks.pooled import Pooled

SIZE = 14


@pytest.fixture(scope="module")
def family():
    return glyph_family("train")


def members(family, number, seed=0):
    """Members of a family without the pool, which a batch would copy."""
    keys = jax.random.split(jax.random.key(seed), number)

    def leaves(key):
        task = family.sample(key)
        return [
            {name: getattr(part, name) for name in ("letters", "letter_count", "is_class", "low", "high", "inverted")}
            for part in (task.support, task.query)
        ]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(leaves))(keys))


def tasks(distribution, number, seed=0):
    sample = eqx.filter_jit(lambda d, keys: jax.vmap(d.sample)(keys))
    return jax.tree.map(np.asarray, sample(distribution, jax.random.split(jax.random.key(seed), number)))


def test_shapes_labels_and_types(family):
    task = tasks(family.sample(jax.random.key(0)).support, 4)
    assert task.support.x.shape == (4, 5, SIZE, SIZE)
    assert task.query.x.shape == (4, 15, SIZE, SIZE)
    assert task.support.x.dtype == np.float32
    np.testing.assert_array_equal(task.support.y[3], np.arange(5))
    np.testing.assert_array_equal(task.query.y[3], np.repeat(np.arange(5), 3))
    assert np.isfinite(task.query.x).all()


def test_same_key_same_bits_under_vmap_too(family):
    keys = jax.random.split(jax.random.key(3), 4)

    def both(key):
        member = family.sample(key)
        return member.query.sample(jax.random.fold_in(key, 1))

    batched = jax.jit(jax.vmap(both))(keys)
    alone = jax.jit(both)(keys[2])
    np.testing.assert_allclose(batched.query.x[2], alone.query.x, atol=1e-6)
    again = jax.jit(jax.vmap(both))(keys)
    np.testing.assert_array_equal(batched.query.x, again.query.x)
    assert not np.array_equal(batched.query.x[0], batched.query.x[1])


def test_pools_of_a_member_share_no_letter_and_suffice(family):
    support, query = members(family, 300)
    for row in range(300):
        a = set(support["letters"][row][: support["letter_count"][row]].tolist())
        b = set(query["letters"][row][: query["letter_count"][row]].tolist())
        assert not a & b
        assert len(a) == support["letter_count"][row] >= 5
        assert len(b) == query["letter_count"][row] >= 5
    for name in ("is_class", "low", "high", "inverted"):
        np.testing.assert_array_equal(support[name], query[name])


def test_letters_of_a_member_are_of_one_script(family):
    support, query = members(family, 200)
    starts = np.asarray(family.group_start)
    seen = set()
    for row in range(200):
        letters = [part["letters"][row][: part["letter_count"][row]] for part in (support, query)]
        group = np.searchsorted(starts, np.concatenate(letters), side="right") - 1
        assert len(set(group.tolist())) == 1
        seen.add(group[0])
    assert len(seen) == len(starts)


def test_splits_share_neither_scripts_nor_held_out_centres():
    sizes = {split: set(glyphs().select(scripts).character.tolist()) for split, scripts in SPLITS.items()}
    assert not sizes["train"] & sizes["test"]
    assert not sizes["train"] & sizes["validation"]
    assert not sizes["validation"] & sizes["test"]
    for name, a in ATTRIBUTES.items():
        for one, other in ((a.usual, a.validation), (a.usual, a.test), (a.validation, a.test)):
            assert one[1] <= other[0] or other[1] <= one[0], name


def test_held_out_members_always_have_an_unusual_centre_and_training_ones_never():
    usual, _ = ranges("train")
    for split in SPLITS:
        support, _ = members(glyph_family(split), 400)
        centre = (support["low"] + support["high"]) / 2
        slack = 1e-4 * np.ptp(usual, axis=1)
        inside = (centre >= usual[:, 0] - slack) & (centre <= usual[:, 1] + slack)
        if split == "train":
            assert inside.all()
        else:
            assert (~inside).any(axis=1).all()
            assert 0.3 < inside.mean() < 0.6
        # both polarities are everywhere: what is held out are scripts and ranges, not dark ink on light paper
        assert 0.3 < support["inverted"].mean() < 0.7


def test_every_attribute_is_the_class_as_often(family):
    support, _ = members(family, 2000)
    assert (support["is_class"].sum(axis=1) <= 1).all()
    shares = np.append(support["is_class"].mean(axis=0), (~support["is_class"].any(axis=1)).mean())
    np.testing.assert_allclose(shares, 1 / len(CLASSES), atol=0.03)


def measured(monkeypatch, name, number=300):
    """Values of all attributes in tasks of a member where `name` is the class: `[task, way, example, attribute]`."""
    family = glyph_family("train", classes=(name,))
    member = family.sample(jax.random.key(1)).support
    caught = []

    def catch(images, noise, which, values, noise_from, inverted, size):
        caught.append((which, values))
        return jnp.zeros((len(which), size, size))

    monkeypatch.setattr("metatower.tasks.glyph_families.render", catch)

    def sample(key):
        caught.clear()
        member.sample(key)
        return caught[0]

    which, values = jax.vmap(sample)(jax.random.split(jax.random.key(2), number))
    return np.asarray(which).reshape(number, 5, 4), np.asarray(values).reshape(number, 5, 4, -1), member


@pytest.mark.parametrize("name", NAMES)
def test_the_class_decides_its_attribute_and_nothing_else(monkeypatch, name):
    which, values, member = measured(monkeypatch, name)
    own = NAMES.index(name)
    step = float(member.class_high[own] - member.class_low[own]) / 5
    # one value per label, in an order of its own in every task, steps apart
    mean = values[..., own].mean(axis=2)
    assert (np.ptp(values[..., own], axis=2) < 0.45 * step).all()
    assert (np.diff(np.sort(mean, axis=1), axis=1) > 0.5 * step).all()
    orders = np.argsort(mean, axis=1)
    assert len(np.unique(orders, axis=0)) > 100  # of 120
    for label in range(5):
        assert abs(mean[:, label].mean() - float(member.class_low[own]) - 2.5 * step) < 0.35 * step
    # nothing else tells the label, nor follows the class
    for other in range(len(NAMES)):
        if other != own:
            nuisance = values[..., other]
            assert np.ptp(nuisance) > 0
            assert (nuisance >= member.low[other] - 1e-5).all()
            assert (nuisance <= member.high[other] + 1e-5).all()
            spread = nuisance.std() / np.sqrt(300 * 4)
            assert (abs(nuisance.mean(axis=(0, 2)) - nuisance.mean()) < 4.5 * spread).all()
            assert abs(np.corrcoef(nuisance.reshape(-1), values[..., own].reshape(-1))[0, 1]) < 0.06
    letter = which // member.images.shape[1]
    assert all(len(set(row.reshape(-1).tolist())) <= int(member.variety) for row in letter)


def test_where_the_letter_is_the_class_it_decides_and_no_drawing_comes_twice(monkeypatch):
    which, values, member = measured(monkeypatch, "character")
    letter = which // member.images.shape[1]
    assert (letter == letter[..., :1]).all()
    for row in range(len(which)):
        assert len(set(letter[row, :, 0].tolist())) == 5
        assert len(set(which[row].reshape(-1).tolist())) == 20
    drawing = which % member.images.shape[1]
    assert (drawing < np.asarray(member.count)[letter]).all()
    allowed = set(np.asarray(member.letters)[: int(member.letter_count)].tolist())
    assert set(letter.reshape(-1).tolist()) == allowed
    assert not bool(member.is_class.any())
    assert np.ptp(values[..., 0]) > 5


def test_two_attributes_may_be_the_class_together(monkeypatch):
    _, values, member = measured(monkeypatch, "ink+x")
    assert int(member.is_class.sum()) == 2
    for name in ("ink", "x"):
        value = values[..., NAMES.index(name)].mean(axis=2)
        assert np.abs(np.diff(np.sort(value, axis=1))).min() > 0


@jax.jit
def rendered(image, values):
    noise = jnp.asarray(noise_table())
    return render(image, noise, jnp.array([0]), values[None], jnp.array([5]), jnp.array(False), 28)[0]


def one_picture(**values):
    """A letter L, rendered with these values and no noise."""
    image = np.zeros((1, 1, 28, 28), np.uint8)
    image[0, 0, 4:24, 6:10] = 255
    image[0, 0, 20:24, 6:20] = 255
    row = {"rotation": 0, "size": 0, "slant": 0, "x": 0, "y": 0, "weight": 0, "ink": 1, "background": 0, "grain": -30}
    row.update(values)
    values = jnp.array([row[name] for name in NAMES], jnp.float32)
    return np.asarray(rendered(jnp.asarray(softened(image, 28)), values))


def middle(picture):
    ys, xs = np.mgrid[:28, :28]
    return np.array([(ys * picture).sum(), (xs * picture).sum()]) / picture.sum()


def test_each_attribute_does_what_its_name_says():
    plain = one_picture()
    assert plain.max() == 1
    assert abs(plain.min()) < 1e-6
    np.testing.assert_allclose(middle(one_picture(x=0.125)) - middle(plain), [0, 3.5], atol=0.4)
    np.testing.assert_allclose(middle(one_picture(y=0.125)) - middle(plain), [3.5, 0], atol=0.4)
    assert 1.6 < one_picture(size=0.5).sum() / plain.sum() < 2.4
    assert one_picture(weight=0.8).sum() > 1.05 * plain.sum() > 1.1 * one_picture(weight=-0.8).sum()
    turned = one_picture(rotation=90)
    assert np.mean((turned - np.rot90(plain)) ** 2) < 0.02 < np.mean((turned - np.rot90(plain, -1)) ** 2)
    np.testing.assert_allclose(one_picture(ink=0.5, background=0.25), 0.25 + 0.5 * plain, atol=1e-6)
    top = one_picture(slant=0.5)[:10], plain[:10]
    assert np.average(np.arange(28), weights=top[0].sum(0)) > np.average(np.arange(28), weights=top[1].sum(0)) + 2
    noise = one_picture(grain=1) - plain
    assert 0.09 < noise.std() < 0.11
    assert one_picture(rotation=45, size=1.5, x=0.3).max() <= 1


def test_fixed_transforms_of_one_script():
    member = script_family("train", queries=2).sample(jax.random.key(0))
    assert not bool(member.support.is_class.any())
    np.testing.assert_array_equal(member.support.low, member.support.high)
    np.testing.assert_array_equal(member.support.low, member.query.high)


def test_a_family_can_be_pooled(family):
    task = tasks(Pooled(family), 3)
    assert task.support.x.shape == (3, 5, SIZE, SIZE)


def test_bad_options_are_one_clear_error():
    with pytest.raises(UserError, match="got 'dev'"):
        glyph_family("dev")
    with pytest.raises(UserError, match="got 'colour'"):
        glyph_family(classes=("rotation", "colour"))
    with pytest.raises(UserError, match="joined"):
        glyph_family(classes=("character+x",))
    with pytest.raises(UserError, match="need 12 drawings"):
        glyph_family(queries=11)
    with pytest.raises(UserError, match="1000 ways need"):
        glyph_family(ways=1000)
    with pytest.raises(UserError, match="at least 2 ways"):
        glyph_family(ways=1)
    with pytest.raises(UserError, match="at least one class"):
        glyph_family(classes=())


def test_small_groups_are_left_out():
    letters = glyphs().select(("Coptic", "Old Italic"))
    family = GlyphFamily(letters.images, letters.count, letters.script, ways=10)
    assert family.group_count.shape == (1,)


@pytest.mark.parametrize("graded", [True, False])
def test_graded_labels_stand_for_the_same_steps_in_every_task(graded):
    family = glyph_family("train", classes=("background",), nuisance=0.0, jitter=0.0, graded=float(graded))
    member = family.sample(jax.random.key(0)).support

    def order(key):
        support = member.sample(key).support
        shades = jnp.median(support.x, axis=(1, 2))  # most of a picture is ground
        return tuple(np.argsort(shades[jnp.argsort(support.y)]).tolist())

    orders = {order(key) for key in jax.random.split(jax.random.key(1), 12)}
    assert (len(orders) == 1) == graded
