"""The laws, each for every row of the contract table."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.contract import AGENTS, CLASSIFIERS, LEARNERS, ROWS, data_of, shapes, stepped
from tests.toys import Curve, Memory, data, key, number, up

import metatower
from metatower import Descend, Expected, Learner, Objective, Tasks, lift, sgd
from metatower.core import Gradient, Rule, run
from metatower.core.describe import describe
from metatower.core.sharding import Sharded
from metatower.evaluation.norms import Alone
from metatower.learners.bandit_agents import Gittins
from metatower.learners.informed import Oracle, Random

pytestmark = pytest.mark.usefixtures("quick_compile")
each_row = pytest.mark.parametrize("row", ROWS, scope="module")
"""By module, so that the tests of a row follow each other and share what they compile."""
LARGE = "learner: meta-gan's trainer"
but_the_large = pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.slow) if row == LARGE else row for row in ROWS], scope="module"
)
"""All, of which one takes minutes to trace again."""


def same_bits(one, other):
    one, other = (jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (one, other))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def finite(tree) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)))


def subclasses(kind) -> set[type]:
    found = set()
    for each in kind.__subclasses__():
        found |= {each} | subclasses(each)
    return {each for each in found if each.__module__.startswith("metatower")}


# The table holds everything there is.


def test_every_learner_has_a_row():
    assert set(metatower.learners.LEARNERS) <= set(LEARNERS)
    kinds = {type(make()) for make in {**LEARNERS, **CLASSIFIERS, **AGENTS}.values()}
    wrappers = {Sharded, Alone}  # of learners
    set_ways = {Gittins, Oracle, Random}  # have no leaf that a storey above could learn: `test_informed.py`
    assert {each for each in subclasses(Learner) if not inspect.isabstract(each)} <= kinds | wrappers | set_ways


def parts(module) -> set[type]:
    """The classes of a module and of all that stands in its fields."""
    found = {type(module)}
    for content in vars(module).values():
        if isinstance(content, eqx.Module):
            found |= parts(content)
    return found


def test_every_rule_and_gradient_has_a_row():
    rows = [make() for make in ROWS.values()]
    used = set().union(*(parts(row) | parts(row.first_order()) for row in rows))
    there = subclasses(Rule) | subclasses(Gradient)
    assert {each for each in there if not inspect.isabstract(each)} <= used


# Law 1: closed under lift.


@each_row
def test_a_step_keeps_shapes_and_is_finite(row):
    learner = ROWS[row]()
    here, before = data_of(row, learner.height), learner.start(key=key(0))
    state, metrics, (loss, shown) = stepped(learner, here)
    if before is None:  # it keeps what it is shown, so that only the second step can be like the first
        before, state = state, learner.step(state, here, key=key(1))
    assert shapes(state) == shapes(before)
    assert loss.shape == ()
    assert finite((state, metrics, loss, shown))


@but_the_large
def test_lifted_twice_it_traces_as_before(row):
    learner = up(up(ROWS[row]()))
    tasks = data_of(row, learner.height)
    start = eqx.filter_eval_shape(lambda k: learner.start(key=k), key(0))
    after = eqx.filter_eval_shape(lambda state, k: learner.step(state, tasks, key=k), start, key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, after) == jax.tree.map(lambda leaf: leaf.shape, start)
    assert describe(learner).count("\nstorey ") + 1 == learner.height + 1


@pytest.mark.parametrize("row", ["learner: maml", "learner: a learner without gradient", "gradient: evolution"])
def test_heights_one_to_three_learn_end_to_end(row):
    learner = ROWS[row]()
    while learner.height < 3:
        learner = up(learner, batch=1)
        state, _, (loss, _) = stepped(learner, data(learner.height))
        assert finite((state, loss))
        moved = [bool(jnp.any(a != b)) for a, b in zip(state.leaves, learner.start(key=key(0)).leaves, strict=True)]
        assert any(moved), f"nothing moved at height {learner.height}"


def test_a_learner_of_a_stranger_is_lifted_unseen():
    """No import from the core but the class it must be."""

    class Nearest(metatower.Learner):
        scale: jax.Array

        def start(self, *, key):
            return jnp.zeros(3), jnp.zeros(3)

        def step(self, state, data, *, key):
            return data.x, data.y

        def loss(self, state, data, *, key):
            x, y = state
            near = jax.nn.softmax(-self.scale * (data.x[:, None] - x) ** 2)
            return jnp.mean((near @ y - data.y) ** 2), {}

    tower = up(up(Nearest(number(1.0))))
    state, _, (loss, _) = stepped(tower, data(2))
    assert finite((state, loss))
    assert state.leaves[0] != 1.0  # the scale it starts from was learned


# Law 2: fixed names and order; jit and vmap.

SIGNATURES = {
    (Learner, "start"): ["self", "*key"],
    (Learner, "step"): ["self", "state", "data", "*key"],
    (Learner, "update"): ["self", "state", "data", "*key"],
    (Learner, "adapt"): ["self", "support", "*key"],
    (Learner, "loss"): ["self", "state", "data", "*key"],
    (Objective, "loss"): ["self", "data", "*key"],
    (Tasks, "sample"): ["self", "key"],
    (Rule, "start"): ["self", "leaves"],
    (Rule, "step"): ["self", "state", "leaves", "gradient"],
    (Gradient, "score"): ["self", "learner", "task", "*key"],
    (Gradient, "begin"): ["self", "at", "leaves", "*key"],
    (Gradient, "cross"): ["self", "at", "data", "leaves", "state", "*key"],
    (Gradient, "estimate"): ["self", "loss", "leaves", "state", "*key"],
    (Learner, "log_probability"): ["self", "state"],
}


@pytest.mark.parametrize(("kind", "method"), SIGNATURES, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_parameter_names_and_order(kind, method):
    for each in {kind} | subclasses(kind):
        parameters = inspect.signature(getattr(each, method)).parameters.values()
        # more by name is allowed: who calls by the contract does not notice
        named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        shown = ["*" * (p.kind is p.KEYWORD_ONLY) + p.name for p in named]
        assert shown == SIGNATURES[kind, method], f"{each.__name__}.{method}"


@but_the_large
def test_vmap_does_what_a_loop_does(row):
    learner = ROWS[row]()
    here, keys = data_of(row, learner.height), jax.random.split(jax.random.key(3), 2)

    def one(key):
        return learner.step(learner.start(key=key), here, key=key)

    together, alone = jax.jit(lambda: jax.vmap(one)(keys))(), [jax.jit(one)(k) for k in keys]
    for i, each in enumerate(alone):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), together, each)


# Law 4: same key, same bits; the same after save and load; compiled once.


@each_row
def test_same_key_same_bits_before_and_after_a_file_and_one_compilation(row, tmp_path):
    store = pytest.importorskip("metatower.training.store")
    learner = ROWS[row]()
    here, traces = data_of(row, learner.height), []

    @eqx.filter_jit
    def step(learner, state, key):
        traces.append(1)
        return learner.update(state, here, key=key)

    state = learner.start(key=key(0))
    if state is not None:  # a learner that keeps what it is shown has no state to begin with
        state, _ = step(learner, state, key(1))
    else:
        state, _ = learner.update(state, here, key=key(1))
    first = step(learner, state, key(2))
    same_bits(first, step(learner, state, key(2)))
    store.save_arrays(tmp_path / "x.safetensors", (learner, state), {})
    (loaded, loaded_state), _ = store.load_arrays(tmp_path / "x.safetensors", (learner, state))
    same_bits((learner, state), (loaded, loaded_state))
    same_bits(first, step(loaded, loaded_state, key(2)))
    assert len(traces) == 1


# Law 5: nothing leaks from the query.


class Spied(Learner):
    """Shows, as a metric, the state in which the learner is judged."""

    learner: Learner

    @property
    def steps(self):
        return self.learner.steps

    def start(self, *, key):
        return self.learner.start(key=key)

    def step(self, state, data, *, key):
        return self.learner.step(state, data, key=key)

    def update(self, state, data, *, key):
        return self.learner.update(state, data, key=key)

    def loss(self, state, data, *, key):
        loss, _ = self.learner.loss(state, data, key=key)
        seen = [jnp.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))]
        return loss, {"state": jnp.concatenate(seen), "loss": loss}

    def first_order(self):
        return Spied(self.learner.first_order())


GRADIENTS = {name: make for name, make in ROWS.items() if name.startswith("gradient: ")}
BASES = {name: make for name, make in ROWS.items() if name not in GRADIENTS}


@pytest.mark.parametrize("row", BASES)
@pytest.mark.parametrize("part", ["x", "y"])
def test_the_query_does_not_move_the_adapted_state(row, part):
    learner = BASES[row]()
    gradients = (
        [make().gradient for make in GRADIENTS.values()] if row == "learner: maml" else [Expected(learner).gradient]
    )
    if learner.height:  # support and query are distributions
        tasks = data_of(row, learner.height + 1).sample(key(0))
        places = ("slope", "spread", "environment", "below")
        task, query = tasks, next(name for name in places if hasattr(tasks.support, name))
    else:
        task = data_of(row, 1).sample(key(0))
        query = part if hasattr(task.query, part) else "task"

    def change(x):
        return 5 * x + 1 if eqx.is_inexact_array(x) else (x + jnp.arange(len(x))) % 3  # labels in another order

    def changed(task, side):
        return eqx.tree_at(
            lambda t: getattr(getattr(t, side), query), task, replace_fn=lambda node: jax.tree.map(change, node)
        )

    for gradient in gradients:
        score = eqx.filter_jit(lambda task, g=gradient: g.score(Spied(learner), task, key=key(1))[1])
        here, other, moved = score(task), score(changed(task, "query")), score(changed(task, "support"))
        same_bits(here["state"], other["state"])
        assert here["loss"] != other["loss"]
        assert jnp.any(here["state"] != moved["state"])


# Law 6: nothing that is not finite is swallowed.


@each_row
def test_a_nan_in_the_data_shows_in_the_state(row):
    learner = ROWS[row]()
    here = jax.tree.map(lambda x: x * jnp.nan if eqx.is_inexact_array(x) else x, data_of(row, learner.height))
    state, _, (loss, _) = stepped(learner, here)
    assert jnp.isnan(loss)
    assert not finite(state)


# The adaptation itself.


def test_adapt_takes_the_learners_own_steps():
    learner, support = Memory(number(0.5), number(1.0)), data(0)
    now = jnp.zeros(())
    for _ in range(2):
        now = learner.step(now, support, key=key(0))
    np.testing.assert_allclose(learner.adapt(support, key=key(1)), now, rtol=1e-6)


@pytest.mark.parametrize(
    "how", [{"remat": True}, {"last": 1}, {"last": 1, "remat": True}, {"last": 9}, {"segment": 1}, {"segment": "sqrt"}]
)
def test_how_a_run_is_differentiated_does_not_change_its_value(how):
    learner, support = LEARNERS["maml"](), data(0)
    same_bits(run(learner, support, key=key(0)), run(learner, support, key=key(0), **how))


def test_no_steps_is_the_start():
    learner = Descend(Curve(number(0.5), number(0.1)), sgd(0.1), steps=0)
    same_bits(learner.adapt(data(0), key=key(0)), learner.start(key=key(0)))


# Misuse is answered.


def test_misuse_is_answered_in_a_sentence():
    curve = Curve(number(0.5), number(0.1))
    learner = Descend(curve, sgd(0.1))
    with pytest.raises(ValueError, match="steps as an integer of at least 0, got -1"):
        Descend(curve, sgd(0.1), steps=-1)
    with pytest.raises(ValueError, match="batch as an integer of at least 1, got 0"):
        lift(learner, sgd(0.1), batch=0)
    with pytest.raises(Exception, match=r"takes an Objective|Type-check error"):
        Descend(lambda x: x, sgd(0.1))  # ty: ignore
    with pytest.raises(Exception, match=r"takes a Learner|Type-check error"):
        Expected(curve)  # ty: ignore
    with pytest.raises(ValueError, match=r"chose no floating-point array of Curve\. Its learnable leaves are: w, b"):
        Descend(curve, sgd(0.1), learn=lambda o: ()).start(key=key(0))
    with pytest.raises(ValueError, match=r"selector `learn=` failed on Curve: .*no attribute 'nothing'"):
        Descend(curve, sgd(0.1), learn=lambda o: o.nothing).start(key=key(0))
    with pytest.raises(ValueError, match="list of 1 values, but the rule moves 2 leaves"):
        Descend(curve, sgd([number(0.1)])).start(key=key(0))
    with pytest.raises(TypeError, match=r"expected data with `sample|Type-check error"):
        stepped(up(learner), data(0))
    with pytest.raises(TypeError, match=r"expected data with `sample|Type-check error"):
        stepped(up(up(learner)), data(1))
