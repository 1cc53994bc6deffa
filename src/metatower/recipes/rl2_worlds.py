"""RL² on worlds with states: random Markov decision processes, a gridworld with a hidden goal."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from metatower.envs.gridnavi import GridNavi
from metatower.envs.mdp import RandomMDP
from metatower.envs.protocol import Environment
from metatower.envs.references import gridnavi, mdp
from metatower.learners.acting import Agent
from metatower.learners.informed import Oracle, Random
from metatower.learners.psrl import PSRL
from metatower.recipes.meta_rl import MetaRL


@dataclass(frozen=True)
class RL2MDPs(MetaRL):
    """RL² learns to explore random Markov decision processes.

    The tabular experiment of Duan et al. 2016 (section 3.2, table 2). Every trial has its own MDP of 10 states and 5
    actions, whose rewards and transitions nobody knows; an episode is 10 steps from the same state. Beside it stand
    PSRL, which knows the prior and plans in samples of the posterior, and the oracle that knows the MDP.

    The memory is linear attention, which writes what an action brought under the state it was taken in. Training learns
    from the exact regret of each action, as simulated MDPs can be solved; `--signal reward` is the published way.
    """

    name: ClassVar[str] = "rl2-mdps"

    steps: int = 600
    trials: int = 256
    rate: float = 1e-3
    discount: float = 0.999
    trace: float = 0.9
    entropy: float = 0.02
    unit: float = 20.0
    signal: Literal["reward", "regret"] = "regret"
    memory: Literal["gru", "mingru", "attention", "none"] = "attention"

    def environment(self) -> RandomMDP:
        return RandomMDP()

    def references(self) -> dict[str, Agent]:
        world = self.environment()

        def plan(task: Any) -> Any:
            return mdp.backward_induction(task, world.horizon)[0]

        return {
            "random": Random(world.actions),
            "PSRL": PSRL(world.states, world.actions.size, world.horizon),
            "oracle": Oracle(world.actions.size, _follow, plan),
        }

    def others(self) -> dict[str, Environment]:
        return {
            "mean rewards N(0, 1)": RandomMDP(mean=0.0),
            "mean rewards N(1, 2²)": RandomMDP(spread=2.0),
            "transitions Dirichlet(0.1), nearly certain": RandomMDP(concentration=0.1),
        }

    def rival(self) -> str:
        return "PSRL"  # with the priors of training, as RL² has them

    def how_played(self, agent: Agent) -> dict[str, Any]:
        return {"together": 1} if isinstance(agent, PSRL) else {}  # most of the time it does not plan


def _follow(plan: Any, observation: Any, time: Any) -> Any:
    """The planned action in the state that is observed, one-hot."""
    return plan[time, observation.argmax()]


@dataclass(frozen=True)
class RL2GridNavi(MetaRL):
    """RL² looks for a goal in a gridworld, and remembers where it is.

    GridNavi of Zintgraf et al. 2020 (VariBAD, section 5.1): a 5 x 5 grid, the goal in any cell but those at the start,
    15 steps per episode, 4 episodes per trial. What can be expected of a first episode at best, and of who knows the
    goal, is computed exactly.
    """

    name: ClassVar[str] = "rl2-gridnavi"

    steps: int = 500
    episodes: int = 4
    trials: int = 512
    rate: float = 2e-3
    trace: float = 0.95
    discount: float = 0.97
    unit: float = 3.0

    def environment(self) -> GridNavi:
        return GridNavi()

    def references(self) -> dict[str, Agent]:
        world = self.environment()
        return {"random": Random(world.actions), "oracle": Oracle(world.actions.size, gridnavi.oracle_action)}

    def others(self) -> dict[str, Environment]:
        return {
            "every fifth move goes astray": GridNavi(slip=0.2),
            "episodes of 30 steps": GridNavi(horizon=30),
        }

    def about_references(self) -> list[str]:
        world = self.environment()
        return [
            f"Exact: an episode of who knows the goal brings {gridnavi.oracle_return(world):.2f}; a first episode "
            f"{gridnavi.best_first_return(world):.2f} at best. What is best for all episodes together is not known."
        ]
