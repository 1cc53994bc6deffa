"""Who decides during a meta-training run: the interface of controllers, and one of a manager and a worker."""

import copy
from abc import abstractmethod
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from metatower.nets.mlp import Linear
from metatower.nets.policy import Categorical, Gaussian
from metatower.nets.recurrent import GRU

EXPLORE, FOCUS, POLISH = 0, 1, 2
ROUTINES = ("explore", "focus", "polish")
"""All bins in turn, each task weighted as its bin is preferred; bins drawn as they are preferred; the same with smaller
outer steps."""
CHANGES = ("inner rate", "outer rate", "proximal weight")
"""What a worker changes, through the logarithms."""
PER_BIN = 8
"""Numbers that are seen of each bin."""
GAIN, PROGRESS = 1, 7
"""Which of them are its average gain, nought before it was seen, and its progress."""


class Seen(eqx.Module):
    """What a controller sees of a run: no raw weights, and of losses only logarithms of ratios."""

    numbers: Float[Array, " number"]
    """Of the run as a whole."""
    bins: Float[Array, "bin PER_BIN"]
    """Of what has been drawn from each bin so far."""
    drawn: Int[Array, " task"]
    """The bins of the last meta-step's tasks."""
    gain: Float[Array, " task"]
    """By how much adaptation lowered the logarithm of each task's query loss."""


class Option(eqx.Module):
    """What a manager decides, until it decides again."""

    logits: Float[Array, " bin"]
    """How the bins are preferred."""
    inner: Int[Array, ""]
    """Which of the numbers of inner steps there are to choose from."""
    routine: Int[Array, ""]
    """One of `ROUTINES`, by number."""


Chosen = tuple[PyTree, Option, Float[Array, ""]]
Changed = tuple[Float[Array, " change"], Float[Array, ""]]


class Controller(eqx.Module):
    """Guides meta-training: an option now and then, and changes of the rates at every meta-step."""

    @abstractmethod
    def start(self) -> PyTree:
        """The memory before a run."""

    @abstractmethod
    def manage(self, memory: PyTree, seen: Seen, *, key: PRNGKeyArray) -> Chosen:
        """The next memory, the option, and the log-probability of what was drawn by chance."""

    def work(self, memory: PyTree, seen: Seen, option: Option, *, key: PRNGKeyArray) -> Changed:
        """What is added to the logarithms of `CHANGES`, and the log-probability of what was drawn; nothing as such."""
        del memory, seen, option, key
        return jnp.zeros(len(CHANGES)), jnp.zeros(())


class ManagerWorker(Controller):
    """A recurrent manager and a worker beneath it; with all heads at zero they do what was given as the default.

    The default is a number of inner steps, a routine, how the rates move (`drift`), and how bins are preferred by what
    is seen of them (`given`, linear), none of it trained: with the last two at nought a static schedule, else one whose
    rates move, and a rule of thumb to set out from, such as to take tasks from where adaptation helps.

    The manager scores every bin by the same small network of what was seen of it, so that it knows no bin by its number
    and takes any number of bins. What the worker does depends on the option.

    Args:
        numbers: of a run as a whole that are seen.
        choices: how many numbers of inner steps there are to choose from.
        default: the choice of inner steps that is taken at first, with all bins in turn until `set_out` says otherwise.
        size: units of the manager's GRU.
        hidden: tanh units of the worker, and of what scores bins.
        explores: draw options and changes at random, as `gradients.ScoreFunction` needs it; the likeliest if not.
        smooth: of these, draw no changes of rates: they are the mean, and an exact gradient goes through them.
        prefers: the logit that the default has above the others to begin with.
        unit: what logits are counted in, so that one step size suits them and the changes of rates.
        scale: standard deviation of changes that are drawn, to begin with.
    """

    manager: GRU
    inner: Linear
    routine: Linear
    look: Linear
    score: Linear
    plain: Float[Array, " PER_BIN"]
    worker: Linear
    change: Linear
    reflex: Float[Array, "input change"]
    log_scale: Float[Array, " change"]
    default: Int[Array, ""]
    default_routine: Int[Array, ""]
    given: Float[Array, " PER_BIN"]
    drift: Float[Array, " change"]
    explores: bool = eqx.field(static=True, default=False)
    smooth: bool = eqx.field(static=True, default=False)
    prefers: float = eqx.field(static=True, default=1.0)
    unit: float = eqx.field(static=True, default=4.0)

    def __init__(
        self,
        numbers: int,
        *,
        key: PRNGKeyArray,
        choices: int = 3,
        default: int = 1,
        size: int = 8,
        hidden: int = 8,
        explores: bool = False,
        smooth: bool = False,
        prefers: float = 1.0,
        unit: float = 4.0,
        scale: float = 0.1,
    ):
        keys = jax.random.split(key, 6)
        inputs = numbers + size
        self.manager = GRU(numbers, size, key=keys[0])
        self.inner = Linear(inputs, choices, key=keys[1], scale=0.0)
        self.routine = Linear(inputs, len(ROUTINES), key=keys[2], scale=0.0)
        self.look = Linear(PER_BIN + size, hidden, key=keys[3])
        self.score = Linear(hidden, 1, key=keys[4], scale=0.0)
        self.plain = jnp.zeros(PER_BIN)
        inputs = inputs + choices + len(ROUTINES)
        self.worker = Linear(inputs, hidden, key=keys[5])
        self.change = Linear(hidden, len(CHANGES), key=keys[5], scale=0.0)
        self.reflex = jnp.zeros((inputs, len(CHANGES)))
        self.log_scale = jnp.full(len(CHANGES), jnp.log(scale))
        self.default = jnp.asarray(default, jnp.int32)
        self.default_routine = jnp.asarray(EXPLORE, jnp.int32)
        self.given = jnp.zeros(PER_BIN)
        self.drift = jnp.zeros(len(CHANGES))
        self.explores, self.smooth, self.prefers, self.unit = explores, smooth, prefers, unit

    def start(self) -> Float[Array, " unit"]:
        return self.manager.start()

    def manage(self, memory: Float[Array, " unit"], seen: Seen, *, key: PRNGKeyArray) -> Chosen:
        memory, said = self.manager(memory, seen.numbers)
        x = jnp.concatenate([seen.numbers, said])[None]
        each = jnp.concatenate([seen.bins, jnp.broadcast_to(said, (len(seen.bins), len(said)))], axis=1)
        known = self.plain + jax.lax.stop_gradient(self.given)
        scores = self.score(jnp.tanh(self.look(each)))[:, 0] + seen.bins @ known
        inner, routine = (
            Categorical(self.unit * head(x)[0] + self.prefers * (jnp.arange(len(head.bias)) == default))
            for head, default in ((self.inner, self.default), (self.routine, self.default_routine))
        )
        if not self.explores:
            return memory, Option(self.unit * scores, inner.mode(), routine.mode()), jnp.zeros(())
        keys = jax.random.split(key)
        option = Option(self.unit * scores, inner.sample(keys[0]), routine.sample(keys[1]))
        return memory, option, inner.log_probability(option.inner) + routine.log_probability(option.routine)

    def work(self, memory: Float[Array, " unit"], seen: Seen, option: Option, *, key: PRNGKeyArray) -> Changed:
        chosen = [
            (jnp.arange(n) == which).astype(memory.dtype)
            for n, which in ((len(self.inner.bias), option.inner), (len(ROUTINES), option.routine))
        ]
        x = jnp.concatenate([seen.numbers, memory, *chosen])
        mean = self.change(jnp.tanh(self.worker(x[None])))[0] + x @ self.reflex + jax.lax.stop_gradient(self.drift)
        if self.smooth or not self.explores:
            return mean, jnp.zeros(())
        changes = Gaussian(mean, self.log_scale)
        drawn = changes.sample(key)
        return drawn, changes.log_probability(drawn)


def set_out(
    controller: ManagerWorker,
    inner: int,
    drift: Sequence[float] = (0.0, 0.0, 0.0),
    routine: int = EXPLORE,
    given: Float[Array, " PER_BIN"] | None = None,
) -> ManagerWorker:
    """The same controller with this default."""
    preferred = jnp.zeros(PER_BIN) if given is None else given
    default = jnp.asarray(inner, jnp.int32), jnp.asarray(routine, jnp.int32), preferred, jnp.asarray(drift, jnp.float32)
    return eqx.tree_at(lambda each: (each.default, each.default_routine, each.given, each.drift), controller, default)


def at_rest(controller: ManagerWorker) -> ManagerWorker:
    """The same controller with all heads at zero: it does what was given as the default, whatever it sees."""

    def heads(each):
        linear = [
            part for head in (each.inner, each.routine, each.score, each.change) for part in (head.weight, head.bias)
        ]
        return [*linear, each.plain, each.reflex]

    return eqx.tree_at(heads, controller, [jnp.zeros_like(leaf) for leaf in heads(controller)])


def decided(controller: ManagerWorker) -> ManagerWorker:
    """The same policy, which takes what is likeliest instead of drawing: as it ships, not as it is trained."""
    same = copy.copy(controller)
    object.__setattr__(same, "explores", False)  # a field of no array: no surgery on the tree reaches it
    return same
