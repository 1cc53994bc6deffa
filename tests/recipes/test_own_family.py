"""A family from a Python file: what works, and what is said of files that do not."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from metatower.core.errors import UserError
from metatower.evaluation.episodes import evaluate
from metatower.recipes import feature_baselines
from metatower.recipes.families import FAMILIES, base_recipe, family_recipe
from metatower.recipes.grounds import SHARED, of_file
from metatower.recipes.hierarchical_functions import HierarchicalRL
from metatower.recipes.own_family import read
from metatower.training.progress import Silent

EXAMPLE = Path(__file__).parents[2] / "examples" / "06_your_own_family.py"
FUNCTIONS = """
from metatower.tasks.functions import FunctionFamily
def family(split):
    return FunctionFamily(("step",) if split == "test" else ("polynomial",), 4, 6)
"""
TWO = """
import jax, jax.numpy as jnp
from metatower import Task, Tasks
from metatower.nets import Examples
class Points(Tasks):
    a: jax.Array
    def sample(self, key):
        x = jax.random.normal(key, (8, *SHAPE))
        y = TARGET
        return Task(Examples(x[:4], y[:4], WAYS), Examples(x[4:], y[4:], WAYS))
class Family(Tasks):
    a: jax.Array
    def sample(self, key):
        a = self.a * jax.random.normal(key)
        return Task(Points(a), Points(a))
def family(split):
    return Family(jnp.array(2.0 if split == "test" else 1.0))
"""


def two(shape="(3,)", target="self.a * x[:, :2]", ways=None, more="") -> str:
    text = TWO.replace("SHAPE", shape).replace("TARGET", target).replace(", WAYS", f", ways={ways}" if ways else "")
    return text + more


# the two pools differ in what is no array
POOLS = (
    two(target="(1 + self.pool) * x[:, :2]")
    .replace(
        "    a: jax.Array\n    def sample(self, key):\n        x",
        """\
    a: jax.Array
    pool: int = eqx.field(static=True)
    def sample(self, key):
        x""",
    )
    .replace("Task(Points(a), Points(a))", "Task(Points(a, 0), Points(a, 1))")
    .replace("import jax,", "import equinox as eqx, jax,")
)


def file(tmp_path, text: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        (EXAMPLE.read_text(), 1, 1),
        (FUNCTIONS, 1, 1),
        (two(), 3, 2),
        (two(target="(x[:, 0] > self.a).astype(int)", ways="jnp.ones(2, bool)"), 3, 2),
        (POOLS, 3, 2),
    ],
    ids=["example", "functions", "vectors", "labels", "pools"],
)
def test_a_family_is_read_and_every_recipe_builds_on_it(text, inputs, outputs, tmp_path):
    own = read(file(tmp_path, text))
    assert (own.inputs, own.outputs) == (inputs, outputs)
    assert own.ways == (2 if "ways=jnp" in text else None)
    assert own.metric == ("accuracy" if "ways=jnp" in text else "loss")
    labels = own.ways is not None
    for name, family in FAMILIES.items():
        if family.by_features and not labels:
            continue
        recipe = family_recipe(name, of_file(own))
        learner, data = recipe.build()
        assert data is own.splits["train"]
        assert recipe.family("validation") is own.splits["validation"]
        state = jax.eval_shape(lambda key, learner=learner: learner.start(key=key), jax.random.key(0))
        after = jax.eval_shape(lambda s, k, t=learner, d=data: t.step(s, d, key=k), state, jax.random.key(1))
        assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize(("text", "shared"), [(EXAMPLE.read_text(), False), (two(), True), (POOLS, False)])
def test_it_is_said_where_runs_are_judged_on_the_tasks_that_they_learn_from(text, shared, tmp_path):
    assert (SHARED in of_file(read(file(tmp_path, text))).words) == shared


@pytest.mark.parametrize("labels", [False, True])
def test_it_is_said_how_few_distributions_there_are(labels, tmp_path):
    text = two(target="(x[:, 0] > self.a).astype(int)", ways="jnp.ones(2, bool)") if labels else two()
    assert "Only" not in of_file(read(file(tmp_path, text))).words
    few = text.replace("jax.random.normal(key)\n", "jax.random.randint(key, (), 1, 4)\n").replace("2.0 if", "-1.0 if")
    assert "Only 3 different ones among 32" in of_file(read(file(tmp_path, few))).words


def test_a_file_may_import_its_neighbour_and_errors_of_relative_paths_have_lines(tmp_path, monkeypatch):
    (tmp_path / "my_neighbour_of_families.py").write_text(FUNCTIONS)
    file(tmp_path, "from my_neighbour_of_families import family\n")
    before = list(sys.path)
    monkeypatch.chdir(tmp_path)
    assert read(Path("mine.py")).inputs == 1
    assert sys.path == before
    file(tmp_path, "import metatower\n1 / 0\n")
    with pytest.raises(UserError, match=r"^mine.py cannot be run: .*\(line 2\)"):
        read(Path("mine.py"))
    (tmp_path / "my_broken_neighbour_of_families.py").write_text("\n\n\ndef (")
    file(tmp_path, "\nimport my_broken_neighbour_of_families\n")
    with pytest.raises(UserError, match=r"SyntaxError.*\(line 2\)"):
        read(Path("mine.py"))


def test_the_file_may_choose_the_network(tmp_path):
    own = read(file(tmp_path, FUNCTIONS + "hidden = (7, 5)\n"))
    assert [layer.bias.size for layer in own.objective(0, (40,)).net.layers] == [7, 5, 1]
    net = """
from metatower.nets import MLP, Supervised, squared_error
class Flat(MLP):
    def __call__(self, x):
        return super().__call__(x.reshape(len(x), -1))
def objective(seed):
    return Supervised(Flat((4, 3, 1), key=jax.random.key(seed)), squared_error)
"""
    own = read(file(tmp_path, two("(2, 2)", "self.a * x[:, 0, :1]", more=net)))
    assert [layer.bias.size for layer in own.objective(0, (40,)).net.layers] == [3, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is no file"),
        ("def family(split", r"cannot be run: SyntaxError.*line 1"),
        ("import metatower\n1 / 0\n", r"cannot be run: ZeroDivisionError: division by zero \(line 2\)"),
        ("raise SystemExit(0)\n", "cannot be run: SystemExit"),
        ("families = 3\n", "has no function `family`. Expected `def family"),
        ("family = 3\n", "has no function `family`"),
        ("def family():\n    return 1\n", r"family\('train'\) raised TypeError"),
        ("def family(split):\n    raise KeyError(split)\n", r"family\('train'\) raised KeyError.*line 2"),
        ("def family(split):\n    pass\n", "returned nothing; expected a `metatower.Tasks`"),
        ("def family(split):\n    return [1]\n", "returned a list; expected a `metatower.Tasks`"),
        (FUNCTIONS.replace("return", "return 3 if split == 'test' else"), r"family\('test'\) returned an int"),
        (
            "from metatower.tasks.functions import Sinusoids\ndef family(split):\n    return Sinusoids()\n",
            "the support of a task is an Examples, not a `Tasks` of its own",
        ),
        (two(target="x[:, 0]"), r"targets have shape \(4,\)"),
        (two(target="x[:, :1] / 0"), "not finite"),
        (two().replace("jax.random.normal(key, (8,", "jnp.ones((8,"), "the same task for every key"),
        (two(target="(x[:, 0] > self.a) * 1.0", ways="jnp.ones(2, bool)"), "labels are float32, not integers"),
        (two(target="x[:, 0] > self.a", ways="jnp.ones(2, bool)"), "labels are bool, not integers"),
        (
            two(target="jnp.arange(len(x)) % 3", ways="3").replace(
                "from metatower.nets import Examples",
                "from collections import namedtuple\nExamples = namedtuple('Examples', 'x y ways')",
            ),
            "`ways` is an int, not a boolean mask with one entry per class",
        ),
        (two(target="1 + jnp.arange(len(x)) % 3", ways="jnp.ones(3, bool)"), "some labels are not in 0"),
        (two(target="jnp.arange(len(x)) % 3 - 1", ways="jnp.ones(3, bool)"), "some labels are not in 0"),
        (two(target="jnp.where(self.a < -1, 2, 0) + jnp.arange(8) % 2", ways="jnp.ones(2, bool)"), "some labels"),
        (two(target="jnp.arange(len(x)) % 3", ways="jnp.arange(3) != 1"), "classes that `ways` says their task lacks"),
        (two(target="jnp.where(self.a < -1, jnp.nan, x)"), "some distributions have tasks with numbers that are not"),
        (two(target="x * np.random.rand()").replace("import jax,", "import numpy as np, jax,"), "for the same key"),
        (two().replace("self.a * jax.random.normal(key)", "self.a"), "every key gives the same distribution"),
        (
            two().replace("2.0 if", "1.0 if"),
            r"family\('test'\) has distributions of family\('train'\).*use `split`",
        ),
        (two("(2, 2)"), r"inputs of shape \(2, 2\).*objective\(seed\)"),
        (two(target="(x[:, 0] > self.a).astype(int)"), r"labels whose number.*objective\(seed\)"),
        (two(target="float(self.a) * x[:, :1]"), "raised ConcretizationTypeError.*pure function that JAX can trace"),
        (FUNCTIONS + "hidden = 40\n", "expected `hidden` as units"),
        (FUNCTIONS + "def objective(seed):\n    return None\n", "the network cannot be used on its tasks"),
        (
            two().replace("def family(split):\n", "def family(split):\n    if split == 'test': return Other()\n")
            + "class Other(Tasks):\n    def sample(self, key):\n"
            "        from metatower.tasks.functions import Sinusoids\n        return Task(Sinusoids(), Sinusoids())\n",
            "one network has to serve both",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(text, words, tmp_path):
    path = tmp_path / "nowhere.py" if text is None else file(tmp_path, text)
    with pytest.raises(UserError, match=words) as found:
        read(path)
    assert "\n" not in str(found.value).strip()


def test_other_places_are_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    other = tmp_path / "family.txt"
    other.write_text("x")
    with pytest.raises(UserError, match="not a Python file"):
        read(other)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("name", list(feature_baselines.HEADS))
def test_where_tasks_have_labels_classifiers_by_features_compete(name, tmp_path):
    own = read(file(tmp_path, two(target="jnp.arange(len(x)) % 2", ways="jnp.ones(2, bool)")))
    where = of_file(own)
    recipe = base_recipe(where, meta_steps=2, meta_batch=2, tuned_on=2)
    learner = feature_baselines.pooled(recipe, name, where.features(0), 2, tmp_path, Silent())
    assert (learner.height, learner.steps) == (1, 0)
    longer, _ = feature_baselines.then_k(recipe, name, learner, tmp_path, Silent())
    assert longer.steps == 2
    before, after = (evaluate(x, own.splits["test"], episodes=2, seed=0, chunk=2) for x in (learner, longer))
    assert set(before) == set(after) == {"loss", "accuracy"}
    assert not np.array_equal(before["loss"], after["loss"])  # a run moves the features


def test_a_manager_chooses_among_the_sources_that_distributions_of_a_file_have(tmp_path):
    path = tmp_path / "sources.py"
    path.write_text(
        "from metatower.tasks.binned import CorruptedFamily\n"
        "from metatower.tasks.functions import FunctionFamily\n\n\n"
        "def family(split):\n"
        "    kind = 'step' if split == 'test' else 'sinusoid'\n"
        "    return CorruptedFamily(FunctionFamily((kind,), pools=2), (0.5,), bins=3)\n"
    )
    recipe = family_recipe("hierarchical", of_file(read(path)))
    assert (recipe.bins, recipe.thumbs) == (3, HierarchicalRL.thumbs)
    sampled = recipe.data().sample(jax.random.key(0))
    guided = recipe.learner().objective.learner
    state = jax.eval_shape(lambda key: guided.step(guided.start(key=key), sampled.support, key=key), jax.random.key(1))
    assert state.table.shape[0] == 3
    assert family_recipe("hierarchical", of_file(read(EXAMPLE))).thumbs == (0.0,)
