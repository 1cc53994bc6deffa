"""The contract table: every learner, rule and gradient of the library is one row, and each row goes through all laws.

A row makes a learner. A rule's row is a learner that descends by it, a gradient's row a learner whose storey it
crosses, so that `test_contract.py` needs no cases. To add an algorithm, add its row here.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from tests.toys import Blobs, Memory, Stretched, curve, data, embedding, guess, key, number, up

from metatower import (
    Constant,
    Descend,
    Learner,
    Objective,
    Positive,
    adam,
    anneal,
    clip,
    from_optax,
    momentum,
    per_step,
    rates_for,
    sgd,
)
from metatower.core import Gradient, Rule, pick, put
from metatower.core.keys import fork
from metatower.envs import Worlds
from metatower.gradients import (
    NRES,
    PES,
    Clipped,
    Evolution,
    FirstOrder,
    ForwardMode,
    Implicit,
    Lifelong,
    MixedMode,
    MultiStep,
    Relative,
    Reptile,
    ScoreFunction,
    Switching,
    Truncated,
    Unrolled,
)
from metatower.learners import (
    PPO,
    R2D2,
    Coached,
    FullContext,
    Guided,
    ImplicitMAML,
    LogisticRegression,
    MatchingNetwork,
    MetaGAN,
    NearestCentroid,
    NearestNeighbour,
    ProMP,
    PrototypicalNetwork,
    RecurrentAdaptation,
    anil,
    fomaml,
    leo,
    lifetime,
    maml,
    maml_plus_plus,
    maml_rl,
    meta_gan,
    meta_gan_few_shot,
    meta_gan_trainer,
    meta_sgd,
    recurrent_adaptation,
    reptile,
    rl2,
    self_referential,
)
from metatower.learners.bandit_agents import UCB, BestArm, EpsilonGreedy, Greedy, RandomArm, Thompson
from metatower.learners.coached import levers
from metatower.learners.maml_rl import Reflex
from metatower.learners.psrl import PSRL
from metatower.nets import (
    LearnedLoss,
    Linear,
    SetEncoder,
    Supervised,
    cross_entropy,
    learned_loss,
)
from metatower.nets.coach import ManagerCoach
from metatower.nets.controller import ManagerWorker
from metatower.nets.super_net import super_net
from metatower.rules import (
    kronecker,
    learned_lstm,
    learned_mlp,
    online,
    only,
    remembering,
    rescaled,
    scaled,
    task_conditioned,
)


def mlp_rule(rate=None, power: float = 0.5, **how) -> Rule:
    """A learned rule whose network says something."""
    rule = learned_mlp(number(0.2) if rate is None else rate, key=key(7), power=number(power), units=3, **how)
    return eqx.tree_at(lambda rule: rule.out, rule, 0.3 * jnp.arange(1.0, 4.0))


def spoken(rule: Rule) -> Rule:
    """A task-conditioned rule whose network says something."""
    says = 0.1 * jnp.arange(rule.second.size, dtype=rule.second.dtype).reshape(rule.second.shape)
    return eqx.tree_at(lambda rule: rule.second, rule, says)


def warm(objective: Objective, rule: Rule) -> Rule:
    """A remembered rule after one steep step: a memory without squared gradients is at the edge of where it may be."""
    cold, leaves = remembering(objective, rule), pick(objective)
    memory, _ = rule.step(cold.memory, leaves, [jnp.full_like(leaf, 30.0) for leaf in leaves])
    return eqx.tree_at(lambda cold: cold.memory, cold, memory)


def fit() -> LearnedLoss:
    """A network of one layer with a learned loss that says something."""
    fresh = learned_loss(Supervised(Linear(2, 3, key=key(4)), cross_entropy), 3, key=key(5), units=2)
    return eqx.tree_at(lambda loss: loss.second, fresh, jnp.array([0.5, -0.3]))


def adaptation() -> RecurrentAdaptation:
    """A recurrent adaptation whose memories say something."""
    fresh = recurrent_adaptation(curve(), mlp_rule(averages=(0.9,)), steps=2, key=key(8), life=3, units=2, rank=2)
    says = 0.5 * jax.random.normal(key(9), fresh.head.shape), jax.random.normal(key(10), fresh.shift.shape)
    return eqx.tree_at(lambda learner: (learner.head, learner.shift), fresh, says)


def coached() -> Coached:
    """A training whose coach's heads say something."""
    coach = ManagerCoach(key=key(13), size=2, hidden=2)
    said = [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(fork(key(14), 20), pick(coach), strict=False)]
    trainer = PPO(rl2(guess(), key=key(7), size=3), clip(adam(0.01)), 2, trials=4, epochs=1, minibatches=2)
    return Coached(trainer, put(coach, said), levers(trainer), steps=2, horizon=2, every=2)


def guided(explores: bool = False, **options) -> Guided:
    """A run that is guided by a policy whose heads say something."""
    policy = ManagerWorker(25, key=key(13), choices=2, default=1, size=2, hidden=2, explores=explores)
    leaves = pick(policy)
    keys = fork(key(14), len(leaves))
    said = [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    logs = jnp.array([0.1, -0.1, -2.0])
    return Guided(
        maml(curve(), number(0.2), steps=2), sgd(number(0.1)), put(policy, said), logs, steps=2, horizon=2, batch=2,
        bins=2, every=1, choices=(1, 2), judged=2, **options,
    )  # fmt: skip


def generating(**options) -> MetaGAN:
    """A meta-GAN whose networks tell three classes of points in the plane apart."""
    objective = Supervised(super_net((2, 3, 3), "tanh", key=key(13)), cross_entropy)
    base = Descend(objective, sgd(rates_for(objective, 0.2)), steps=1)
    return meta_gan(base, 2, 3, key=key(14), chance=2, context=3, batch=2, judged=2, **options)


def generating_trainer() -> Learner:
    """Its trainer, as small as it goes."""
    rules = {"generator": sgd(number(0.1)), "discriminator": sgd(number(0.1))}
    sizes = {"distributions": 1, "tasks": 1, "context": 2, "pairs": 1, "bank": 2, "fresh": 1, "every": 1, "long": 1}
    family = Stretched(Blobs(number(0.5)))
    return meta_gan_trainer(generating(), family, jnp.ones((2, 2)), rules, key=key(15), **sizes)


def faking() -> Learner:
    """A classifier of three classes and of fakes, against who makes them."""
    net = Linear(2, 4, key=key(5))
    rules = {"classifier": sgd(number(0.1)), "generator": sgd(number(0.1))}
    return meta_gan_few_shot(net, sgd(number(0.2)), 2, rules, key=key(6), steps=1, batch=2, judged=2)


LEARNERS: dict[str, Callable[[], Learner]] = {
    "maml": lambda: maml(curve(), number(0.2), steps=2),
    "anil": lambda: anil(curve(), lambda o: o.b, number(0.2), steps=2),
    "meta_sgd": lambda: meta_sgd(curve(), 0.2, steps=2),
    "fomaml": lambda: fomaml(curve(), sgd(0.1), 0.2, steps=2, batch=2),
    "reptile": lambda: reptile(curve(), sgd(0.1), 0.2, steps=2, batch=2),
    "maml_plus_plus": lambda: maml_plus_plus(curve(), 0.2, steps=2),
    "imaml": lambda: ImplicitMAML(curve(), number(0.2), number(0.5), steps=2),
    "imaml's trainer": lambda: up(ImplicitMAML(curve(), 0.2, number(0.5), steps=20), Implicit()),
    "recurrent adaptation": adaptation,
    "recurrent adaptation that remembers": lambda: lifetime(adaptation(), 2, key=key(11)).result(jnp.ones(3)),
    "lifetime": lambda: lifetime(adaptation(), 2, key=key(11)),
    "lifetime that reads examples": lambda: lifetime(
        adaptation(), 2, key=key(11), encode=SetEncoder(1, 1, (2,), key=key(12)), judged=2
    ),
    "lifetime, two tasks a step": lambda: lifetime(adaptation(), 2, key=key(11), tasks=2),
    "guided": lambda: guided(),
    "guided, as it is trained": lambda: guided(explores=True, rewarded=True, cost=0.1),
    "steered": lambda: guided().result(guided().start(key=key(0))),
    "a learner without gradient": lambda: Memory(number(0.3), number(2.0)),
}

CLASSIFIERS: dict[str, Callable[[], Learner]] = {
    "prototypical": lambda: PrototypicalNetwork(embedding()),
    "prototypical, cosine": lambda: PrototypicalNetwork(embedding(), "cosine", number(10.0)),
    "matching": lambda: MatchingNetwork(embedding()),
    "matching, full context": lambda: MatchingNetwork(embedding(), number(5.0), FullContext(3, 2, key=key(6))),
    "ridge": lambda: R2D2(embedding(), Positive(0.1), number(3.0), number(0.0)),
    "self-referential": lambda: self_referential(2, 3, key=key(5), units=3, hidden=(2,), criterion=cross_entropy),
    "nearest neighbour": lambda: NearestNeighbour(embedding(), number(5.0)),
    "nearest centroid": lambda: NearestCentroid(embedding()),
    "logistic": lambda: LogisticRegression(embedding(), Positive(0.1), iterations=20),
    "leo": lambda: leo(Constant(jnp.tanh), 2, key=key(5), latent=2, latent_steps=1, weight_steps=1),
    "maml_plus_plus, with norms": lambda: maml_plus_plus(Supervised(embedding(), cross_entropy), 0.2, steps=2),
    "imaml, support statistics": lambda: ImplicitMAML(Supervised(embedding(), cross_entropy), 0.2, steps=2),
    "maml, learned loss": lambda: Descend(fit(), sgd(number(0.2)), steps=2, learn=lambda o: o.objective),
    "meta-gan": generating,
    "meta-gan that refines": lambda: generating(refine=sgd(number(0.1))),
    "meta-gan's trainer": generating_trainer,
    "meta-gan of pictures": faking,
    "maml, support statistics": lambda: maml(Supervised(embedding(), cross_entropy), number(0.2), steps=2),
}
"""Learners of classes: their rows bring tasks of their own."""

AGENTS: dict[str, Callable[[], Learner]] = {
    "rl2": lambda: rl2(guess(), key=key(7), size=3, steps=2),
    "rl2, minimal gates": lambda: rl2(guess(), key=key(7), size=3, memory="mingru"),
    "rl2, attention": lambda: rl2(guess(), key=key(7), size=5, memory="attention"),
    "ppo": lambda: PPO(rl2(guess(), key=key(7), size=3), clip(adam(0.01)), 2, trials=4, epochs=2, minibatches=2),
    "ppo, endless": lambda: PPO(rl2(guess(), key=key(7), size=3), sgd(0.01), 2, 4, entropy=number(0.1), endless=True),
    "ppo, regret": lambda: PPO(rl2(guess(), key=key(7), size=3), sgd(0.01), 2, 4, entropy=number(0.1), signal="regret"),
    "coached": lambda: coached(),
    "maml_rl": lambda: maml_rl(guess(), key=key(7), rate=number(0.1), hidden=(3,), trajectories=3, baseline="time"),
    "promp": lambda: ProMP(
        maml_rl(guess(), key=key(7), rate=number(0.1), hidden=(3,), trajectories=3, baseline="time"), sgd(0.01), batch=2
    ),
    "random arm": lambda: RandomArm(3, number(1.0)),
    "greedy": lambda: Greedy(3, number(1.0)),
    "epsilon-greedy": lambda: EpsilonGreedy(3, number(0.1)),
    "ucb": lambda: UCB(3, number(0.2), number(1.0)),
    "thompson": lambda: Thompson(3, prior=number(1.0)),
    "best arm": lambda: BestArm(3, number(1.0)),
    "psrl": lambda: PSRL(1, 3, 2),
    "reflex": lambda: Reflex(maml_rl(guess(), key=key(7), hidden=(3,)).objective.net, 3),
}
"""Learners that act in worlds: their rows bring worlds."""

RULES: dict[str, Callable[[Objective], Rule]] = {
    "sgd": lambda o: sgd(0.2),
    "sgd, learned rate": lambda o: sgd(number(0.2)),
    "sgd, rate per leaf": lambda o: sgd(rates_for(o, 0.2)),
    "sgd, rate per parameter": lambda o: sgd(rates_for(o, 0.2, per="parameter")),
    "momentum": lambda o: momentum(number(0.2), number(0.8)),
    "adam": lambda o: adam(0.05),
    "adam, all learned": lambda o: adam(Positive(0.05), number(0.8), number(0.9), Positive(1e-3)),
    "per_step": lambda o: per_step(sgd(rates_for(o, 0.2, steps=2))),
    "clip": lambda o: clip(sgd(number(0.5)), number(0.05)),
    "anneal": lambda o: anneal(sgd(number(0.5)), 3),
    "rescaled": lambda o: rescaled(momentum(number(0.1), number(0.5))),
    "scaled": lambda o: scaled(sgd(number(0.2)), number(0.5)),
    "only": lambda o: only(sgd(number(0.2)), (True, False)),
    "online": lambda o: online(sgd(rates_for(o, 0.2)), momentum(number(0.5), number(0.5)), sgd(0.1), limit=0.3),
    "kronecker": lambda o: kronecker(o, sgd(number(0.2))),
    "task-conditioned": lambda o: spoken(task_conditioned(o, sgd(number(0.2)), key=key(7), units=3)),
    "learned mlp": lambda o: mlp_rule(rates_for(o, 0.2)),
    "learned lstm": lambda o: learned_lstm(number(0.2), key=key(7), power=number(0.5), decay=number(0.3), units=2),
    "optax": lambda o: from_optax(optax.adam(0.05)),
    "remembering": lambda o: warm(o, adam(0.05)),
}

EXACT: dict[str, Callable[[], Gradient]] = {
    "unrolled": Unrolled,
    "unrolled, with remat": lambda: Unrolled(remat=True),
    "unrolled, without remat": lambda: Unrolled(remat=False),
    "unrolled, in segments": lambda: Unrolled(segment=1),
    "mixed mode": MixedMode,
    "forward mode": ForwardMode,
    "truncated behind the run's start": lambda: Truncated(last=2),
}

ESTIMATORS: dict[str, Callable[[], Gradient]] = {
    "truncated": lambda: Truncated(last=1),
    "first order": FirstOrder,
    "reptile": Reptile,
    "multi step": lambda: MultiStep(jnp.array([0.25, 0.75])),
    "multi step, learned weights": lambda: MultiStep(jnp.array([0.25, 0.75]), learned=True),
    "relative": Relative,
    "clipped": lambda: Clipped(0.1),
    "lifelong": lambda: Lifelong(jnp.array([0.2, 0.3, 0.5])),
    "evolution": lambda: Evolution(pairs=2),
    "persistent evolution": lambda: PES(pairs=2),
    "persistent evolution, whole runs": lambda: PES(pairs=2, unroll=2, every_step=False, staggered=False),
    "noise reuse": lambda: NRES(pairs=2),
    "score function": lambda: ScoreFunction(runs=2),
    "switching": lambda: Switching(Unrolled(), Evolution(pairs=2), limit=1e-3),
}

ROWS: dict[str, Callable[[], Learner]] = {
    **{f"learner: {name}": make for name, make in {**LEARNERS, **CLASSIFIERS, **AGENTS}.items()},
    **{
        f"rule: {name}": lambda make=make: Descend(curve(), make(curve()), steps=2)  # a rule is seen in what it moves
        for name, make in RULES.items()
    },
    **{
        f"gradient: {name}": lambda make=make: up(maml(curve(), number(0.2), steps=2), make())
        for name, make in {**EXACT, **ESTIMATORS}.items()
    },
}


def data_of(row: str, height: int):
    """The data of a row of the table, for a learner of this height."""
    name = row.removeprefix("learner: ")
    return data(height, Blobs(number(0.5)) if name in CLASSIFIERS else Worlds(guess()) if name in AGENTS else None)


@eqx.filter_jit
def _stepped(learner, data, key):
    key_start, key_step, key_loss = jax.random.split(key, 3)
    state, metrics = learner.update(learner.start(key=key_start), data, key=key_step)
    return state, metrics, learner.loss(state, data, key=key_loss)


def stepped(learner: Learner, data, seed: int = 0):
    """The state after one step from a fresh start, and its loss: everything a storey does, compiled together."""
    return _stepped(learner, data, key(seed))


def shapes(tree):
    """Structure, shapes and types of the arrays of a tree."""
    return jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf, eqx.filter(tree, eqx.is_array)
    )
