"""A trained learner as an estimator of scikit-learn: your own pictures or vectors, a few of each class."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError("FewShotClassifier needs scikit-learn: pip install 'metatower[sklearn]'.") from error

from metatower.adapters.adapted import Adapted, for_vectors
from metatower.adapters.pictures import is_vectors, prepared
from metatower.core import Learner
from metatower.core.errors import UserError
from metatower.recipes.learners import PLAIN, find_learner
from metatower.training.files import new_folder, read_json, write_json
from metatower.training.store import load_arrays, save_arrays

RECORD, EXAMPLES, MODEL = "classifier.json", "examples.safetensors", "model"


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Learns classes from a few examples of each, by a learner that has learned how.

    Examples are pictures (an array `[n, h, w]` or `[n, h, w, colours]`, or a list of files, Pillow images and arrays
    of any size and mode) or vectors `[n, features]`. Any number of classes, any number of examples of each. Vectors
    pass by the network of a learner: its head is fitted to them, standardised.

    On vectors all checks of scikit-learn (`check_estimator`) hold that its tags ask for, with every learner that takes
    any number of classes, the default among them. Not asked for are those of sparse matrices and missing values, which
    it refuses, of weights of examples and of several labels at once, which it does not take. Learners whose network has
    a fixed number of inputs and outputs (MAML) cannot pass them, as the checks feed vectors of many lengths. Pictures
    are in no check of scikit-learn.

    Args:
        learner: a name of `metatower.recipes.learners.learners()`, the folder of a run or model, or any `Learner` of
            classes.
        seed: for learners that draw random numbers as they adapt.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: numbers per example, of vectors.
        examples_: the inputs learned from, in order; the rows of `explain`.

    >>> X, y = [[0.0, 0.0], [0.1, 0.0], [1.0, 1.0]], ["left", "left", "right"]
    >>> FewShotClassifier("nearest-centroid").fit(X, y).predict([[0.9, 0.8]]).tolist()
    ['right']
    """

    def __init__(self, learner: Any = "prototypical", seed: Any = 0):
        self.learner = learner
        self.seed = seed

    def fit(self, X, y) -> "FewShotClassifier":  # noqa: N803 (scikit-learn's name)
        """Learns from these examples alone.

        Raises:
            ValueError: inputs or labels that scikit-learn refuses, or one class only.
            UserError: a seed that is none, pictures that cannot be read, more classes than the learner can tell apart,
                or inputs that its network cannot take.
        """
        inputs, labels = self._first(X, y)
        if len(np.unique(labels)) < 2:
            raise ValueError(f"Expected examples of at least 2 classes, got 1 class only: {labels[0]!r}.")
        return self._learn(inputs, labels)

    def partial_fit(self, X, y, classes=None) -> "FewShotClassifier":  # noqa: N803
        """Adds examples, of classes that are there or of new ones; the result is that of one `fit` on all.

        Args:
            classes: not needed; taken because other estimators want the labels announced.

        Raises:
            ValueError: inputs of another shape, or labels of another type, than those learned from so far.
            UserError: as in `fit`.
        """
        del classes
        if not hasattr(self, "examples_"):
            return self._learn(*self._first(X, y))
        inputs, labels = self._inputs(X), self._labels(y)
        if len(inputs) != len(labels) or inputs.shape[1:] != self.examples_.shape[1:]:
            raise ValueError(
                f"Expected a label for each input and inputs of shape {self.examples_.shape[1:]}, got {len(labels)} "
                f"labels and inputs {inputs.shape}."
            )
        before, now = _types(self.labels_), _types(labels)
        if before != now:
            raise ValueError(f"Expected labels of type {before}, as those learned so far, got {now}.")
        return self._learn(np.concatenate([self.examples_, inputs]), np.concatenate([self.labels_, labels]))

    def predict(self, X) -> np.ndarray:  # noqa: N803
        """The most probable label of each input, `[n]`."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]

    def predict_proba(self, X) -> np.ndarray:  # noqa: N803
        """The probability of each label in the order of `classes_`, `[n, classes]`; rows sum to 1."""
        check_is_fitted(self, "examples_")
        return self.adapted_.probabilities(self._scaled(self._inputs(X)))

    def explain(self, X) -> np.ndarray:  # noqa: N803
        """What each example that was learned from adds to the score of each class, `[n, examples, classes]`.

        Exact: the sum over examples is the score by which classes are compared. For Prototypical Networks and nearest
        centroids that is minus the scaled squared distance to the class's mean, for R2-D2 the regression's output,
        for Matching Networks the probability, for nearest neighbours the similarity.

        Raises:
            UserError: the answers of this learner are no sum over examples.
        """
        check_is_fitted(self, "examples_")
        return self.adapted_.shares(self._scaled(self._inputs(X)))

    def save(self, folder: Path | str) -> Path:
        """Writes what was learned, with the learner if it has a name or a folder, to a new folder.

        Raises:
            UserError: the folder exists, or cannot be written; labels that are neither text nor numbers.
        """
        check_is_fitted(self, "examples_")
        folder = Path(folder)
        if folder.exists():
            raise UserError(f"{folder} exists. Choose another folder, or remove it.")
        if not all(isinstance(label, str | int | float) for label in self.classes_.tolist()):
            raise UserError(
                f"Expected labels of text or numbers, got {_types(self.classes_)}, which a saved classifier cannot "
                "hold. Fit it with `[str(label) for label in y]`."
            )
        kept = find_learner(self.learner).folder
        with new_folder(folder) as temporary:
            known = {"inputs": self.examples_, "labels": np.searchsorted(self.classes_, self.labels_)}
            save_arrays(temporary / EXAMPLES, known, record="examples.json")
            if kept is not None:
                shutil.copytree(kept, temporary / MODEL, ignore=shutil.ignore_patterns("*.md"))
            plain = self.learner if isinstance(self.learner, str) and self.learner in PLAIN else None
            about = {"learner": plain, "model": kept is not None, "seed": self.adapted_.seed, "vectors": self.vectors_}
            about |= {"classes": self.classes_.tolist(), "kind": self.classes_.dtype.kind}
            write_json(temporary / RECORD, about)
        return folder

    @classmethod
    def load(cls, folder: Path | str, learner: Learner | None = None) -> "FewShotClassifier":
        """What `save` wrote. No code is run from the files.

        Args:
            learner: the same learner again, if it was given as an object.

        Raises:
            UserError: missing, damaged or foreign files.
        """
        folder = Path(folder)
        about = read_json(folder / RECORD)
        try:
            listing = read_json(folder / "examples.json")["arrays"]["content"]
            like = {name: np.zeros(each["shape"], each["dtype"]) for name, each in listing.items()}
            classes = np.array(about["classes"], dtype=object if about["kind"] == "O" else None)
            source = str(folder / MODEL) if about["model"] else about["learner"]
            made = cls(source if learner is None else learner, int(about["seed"]))
            vectors = bool(about["vectors"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / RECORD} is not the record of a saved classifier: {error!r}.") from error
        if made.learner is None:
            raise UserError(f"{folder} was saved with a learner of your own: load it with `load(folder, learner)`.")
        known, _ = load_arrays(folder / EXAMPLES, like, record="examples.json")
        made._look_up(vectors)
        if vectors:
            made.n_features_in_ = known["inputs"].shape[1]
        return made._learn(known["inputs"], classes[known["labels"]])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _first(self, X, y) -> tuple[np.ndarray, np.ndarray]:  # noqa: N803
        self._look_up(is_vectors(X))
        if self.vectors_:
            inputs, labels = validate_data(self, X, y, dtype=np.float64)
            check_classification_targets(labels)
            return inputs, labels
        inputs, labels = self._inputs(X), self._labels(y)
        if len(inputs) != len(labels):
            raise ValueError(f"Expected one label per picture, got {len(labels)} labels and {len(inputs)} pictures.")
        return inputs, labels

    def _look_up(self, vectors: bool) -> None:
        if not (isinstance(self.seed, int | np.integer) and self.seed >= 0):
            raise UserError(f"Expected the seed as an integer of at least 0, got {self.seed!r}.")
        self.vectors_, self.found_ = vectors, find_learner(self.learner)

    def _inputs(self, X) -> np.ndarray:  # noqa: N803
        if is_vectors(X) != self.vectors_:
            kinds = ("vectors [n, features]", "pictures (an array [n, h, w], or a list of them)")
            mine, given = kinds if self.vectors_ else kinds[::-1]
            raise ValueError(f"This classifier was fitted to {mine}, got {given}: give it what it was fitted to.")
        if self.vectors_:
            return validate_data(self, X, dtype=np.float64, reset=False)
        return prepared(X, self.found_.size, ink=self.found_.ink)

    def _labels(self, y) -> np.ndarray:
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        return labels

    def _learn(self, inputs: np.ndarray, labels: np.ndarray) -> "FewShotClassifier":
        classes, numbers = np.unique(labels, return_inverse=True)
        learner = self.found_.learner
        if self.vectors_:
            learner = for_vectors(learner)
            spread = inputs.std(axis=0)
            self.mean_ = inputs.mean(axis=0)
            self.spread_ = np.where(spread > 1e-9 * (1 + np.abs(self.mean_)), spread, 1.0)
        adapted = Adapted(learner, self._scaled(inputs), numbers, len(classes), int(self.seed))
        _ = adapted.state  # learned here and now: what the learner refuses is for `fit` to say
        self.examples_, self.labels_, self.classes_, self.adapted_ = inputs, labels, classes, adapted
        return self

    def _scaled(self, inputs: np.ndarray) -> np.ndarray:
        return (inputs - self.mean_) / self.spread_ if self.vectors_ else inputs


def _types(labels: np.ndarray) -> str:
    """Of the labels as Python sees them, whatever kind of array they are in."""
    return " and ".join(sorted({type(label).__name__ for label in labels.tolist()}))
