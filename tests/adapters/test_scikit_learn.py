"""The estimator keeps scikit-learn's promises, and its explanations add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.utils.estimator_checks import parametrize_with_checks

from metatower import Descend, lift, sgd
from metatower.adapters.scikit_learn import FewShotClassifier
from metatower.core import Constant
from metatower.core.errors import UserError
from metatower.learners import R2D2, FullContext, ImplicitMAML, MatchingNetwork, PrototypicalNetwork
from metatower.learners.leo import leo
from metatower.learners.meta_gan_few_shot import Imitator, WithFakes
from metatower.learners.nearest import flat
from metatower.nets import MLP, ConvNet, Supervised, cross_entropy
from metatower.nets.minibatch import Minibatch

OF_FEATURES = {
    "prototypical": PrototypicalNetwork(flat),
    "cosine": PrototypicalNetwork(flat, "cosine", 10.0),
    "matching": MatchingNetwork(flat),
    "r2d2": R2D2(flat, penalty=0.1),
    "centroid": "nearest-centroid",
    "neighbour": "nearest-neighbour",
}


def blobs(seed=0, classes=3, each=4, features=5):
    random = np.random.default_rng(seed)
    centres = random.normal(0, 4, (classes, features))
    y = np.repeat(np.arange(classes), each)
    return centres[y] + random.normal(0, 0.5, (len(y), features)), np.array(["ant", "bee", "cat", "dog"])[y]


@parametrize_with_checks(
    [
        FewShotClassifier(),
        FewShotClassifier("nearest-centroid"),
        FewShotClassifier("logistic-regression"),
        FewShotClassifier(R2D2(flat)),
    ]
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("learner", OF_FEATURES.values(), ids=OF_FEATURES)
def test_answers_and_their_shares(learner):
    X, y = blobs()  # noqa: N806
    new, truth = X + 0.1, y
    model = FewShotClassifier(learner).fit(X, y)
    probabilities, shares = model.predict_proba(new), model.explain(new)
    assert (model.predict(new) == truth).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert shares.shape == (len(new), len(X), 3)
    scores = shares.sum(axis=1)
    odds = scores if isinstance(learner, MatchingNetwork) else np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), probabilities, atol=2e-4)


@pytest.mark.parametrize("learner", ["nearest-centroid", "logistic-regression", R2D2(flat)], ids=str)
def test_adding_examples_is_learning_from_all(learner):
    X, y = blobs(classes=4)  # noqa: N806
    order = np.random.default_rng(1).permutation(len(y))
    X, y = X[order], y[order]  # noqa: N806
    once = FewShotClassifier(learner).fit(X, y)
    grown = FewShotClassifier(learner).partial_fit(X[:1], y[:1])
    for first in range(1, len(y), 5):
        grown.partial_fit(X[first : first + 5], y[first : first + 5])
    assert grown.classes_.tolist() == once.classes_.tolist()
    assert (grown.predict_proba(X) == once.predict_proba(X)).all()


def test_labels_of_another_type_are_not_mixed_in():
    X, y = blobs()  # noqa: N806
    model = FewShotClassifier("nearest-centroid").fit(X, y == "ant")
    with pytest.raises(ValueError, match="type bool, as those learned so far, got str"):
        model.partial_fit(X[:1], ["ant"])
    assert model.classes_.tolist() == [False, True]


def test_vectors_and_pictures_are_told_apart(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (4, 9, 9), np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file, picture in zip(files, pictures, strict=True):
        Image.fromarray(picture).save(file)
    model = FewShotClassifier("nearest-neighbour").fit(np.array([str(file) for file in files]), [0, 1, 2, 3])
    assert model.predict(np.array(files)).tolist() == model.predict(pictures).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"fitted to pictures.*got vectors"):
        model.predict(pictures[0])
    with pytest.raises(ValueError, match=r"fitted to vectors.*got pictures"):
        FewShotClassifier("nearest-neighbour").fit(*blobs()).predict(pictures)


@pytest.mark.parametrize("seed", [None, -1, "0"])
def test_a_seed_is_a_number(seed):
    with pytest.raises(UserError, match="seed as an integer"):
        FewShotClassifier("nearest-centroid", seed).fit(*blobs())


def test_labels_that_cannot_be_saved_are_refused_before_anything_is_written(tmp_path):
    X, y = blobs()  # noqa: N806
    days = np.where(y == "ant", np.datetime64("2024-01-01"), np.datetime64("2024-01-02"))
    with pytest.raises(UserError, match=r"text or numbers, got date"):
        FewShotClassifier("nearest-centroid").fit(X, days).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_network_that_adapts_by_gradients_answers_each_input_by_itself():
    X, y = blobs(classes=3)  # noqa: N806
    maml = Descend(Supervised(MLP((5, 16, 4), key=jax.random.key(0)), cross_entropy), sgd(0.5), steps=30)
    model = FewShotClassifier(maml).fit(X, y)
    assert (model.predict(X) == y).mean() > 0.9
    np.testing.assert_allclose(model.predict_proba(X)[:2], model.predict_proba(X[:2]), rtol=1e-4)
    with pytest.raises(UserError, match="no sum over examples"):
        model.explain(X)


KEY = jax.random.key(0)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(
    "learner",
    [
        leo(Constant(lambda x: x), 5, key=KEY, latent=3, sampling=False),
        ImplicitMAML(Supervised(MLP((5, 8, 3), key=KEY), cross_entropy), rate=0.3, strength=0.01),
        # more outputs than there are classes, the last of them for fakes
        Descend(
            WithFakes(MLP((5, 8, 6), key=KEY), Constant(Imitator(5, 4, 8, key=KEY)), Constant(0.1)), sgd(0.3), steps=30
        ),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_other_learners_of_classes_answer_too(learner):
    X, y = blobs(classes=3)  # noqa: N806
    model = FewShotClassifier(learner).fit(X, y)
    assert (model.predict(X) == y).mean() > 0.6
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_logistic_regression_says_that_it_cannot_be_split():
    with pytest.raises(UserError, match="LogisticRegression"):
        FewShotClassifier("logistic-regression").fit(*blobs()).explain(blobs()[0])


@pytest.mark.parametrize("kind", [str, int, object])
def test_saved_and_loaded_it_says_the_same(kind, tmp_path):
    X, y = blobs()  # noqa: N806
    y = np.unique(y, return_inverse=True)[1] + 7 if kind is int else y.astype(kind)
    model = FewShotClassifier("nearest-centroid").fit(X, y)
    folder = model.save(tmp_path / "model")
    again = FewShotClassifier.load(folder)
    assert again.classes_.tolist() == model.classes_.tolist()
    assert (again.predict_proba(X) == model.predict_proba(X)).all()
    with pytest.raises(UserError, match="exists"):
        model.save(folder)


def test_a_learner_of_ones_own_is_given_again(tmp_path):
    learner = R2D2(flat)
    model = FewShotClassifier(learner).fit(*blobs())
    folder = model.save(tmp_path / "model")
    with pytest.raises(UserError, match=r"load\(folder, learner\)"):
        FewShotClassifier.load(folder)
    again = FewShotClassifier.load(folder, learner)
    assert (again.predict_proba(blobs()[0]) == model.predict_proba(blobs()[0])).all()


@pytest.mark.parametrize("damage", ["classifier.json", "examples.json", "examples.safetensors"])
def test_damaged_files_are_one_clear_error(damage, tmp_path):
    folder = FewShotClassifier("nearest-centroid").fit(*blobs()).save(tmp_path / "model")
    (folder / damage).write_text("{}")
    with pytest.raises(UserError, match=r"classifier\.json|examples"):
        FewShotClassifier.load(folder)


def test_pictures_of_any_size_and_mode():
    random = np.random.default_rng(0)

    def picture(dark, size, mode):
        shades = random.integers(0, 40, size) + (0 if dark else 200)
        shades[: size[0] // 2] = 120
        return Image.fromarray(shades.astype(np.uint8)).convert(mode)

    X = [picture(i % 2 == 0, (20 + 3 * i, 31), mode) for i, mode in enumerate(["L", "RGB", "RGBA", "P", "LA", "1"])]  # noqa: N806
    model = FewShotClassifier("nearest-neighbour").fit(X, ["dark", "bright"] * 3)
    assert model.predict(X).tolist() == ["dark", "bright"] * 3
    arrays = [np.asarray(each.convert("L")) / 255 for each in X]
    assert model.predict(arrays).tolist() == ["dark", "bright"] * 3


@pytest.mark.parametrize(
    ("learner", "error"),
    [
        ("nowhere", "nearest-centroid"),
        (3, "got int"),
        (lift(PrototypicalNetwork(flat, scale=jnp.float32(1.0)), sgd(0.1)), "storey 1"),
        (MatchingNetwork(flat, context=FullContext(5, key=jax.random.key(0))), "full-context"),
    ],
)
def test_learners_that_cannot_be(learner, error):
    with pytest.raises(UserError, match=error):
        FewShotClassifier(learner).fit(*blobs())


OF_PICTURES = {
    "conv": Supervised(ConvNet(2, key=KEY, image=(8, 8, 1), channels=(4,)), cross_entropy),
    "mlp": Supervised(MLP((64, 2), key=KEY), cross_entropy),
    "minibatch": Minibatch(Supervised(MLP((64, 2), key=KEY), cross_entropy), 2),
}


@pytest.mark.parametrize("objective", OF_PICTURES.values(), ids=OF_PICTURES)
def test_what_a_network_cannot_take_is_refused_as_it_learns(objective):
    X = np.random.default_rng(0).random((6, 8, 8), np.float32)  # noqa: N806
    model = FewShotClassifier(Descend(objective, sgd(0.1)))
    with pytest.raises(UserError, match="2 classes apart, and there are 3"):
        model.fit(X, [0, 1, 2] * 2)
    with pytest.raises(UserError, match=r"inputs of shape \(4,\)"):
        model.fit(X[:, 0, :4], [0, 1] * 3)
