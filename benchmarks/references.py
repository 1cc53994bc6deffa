"""What is best in each environment, computed, beside what is published, and how fast each environment steps.

python -m benchmarks.references            # a minute or two
python -m benchmarks.references --trials 20000
python -m benchmarks.references --bonuses --trials 20000      # only which bonus suits UCB
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp

from metatower.core.keys import fork
from metatower.envs import Arm, BernoulliBandit, CartPole, Discrete, GridNavi, Navigation, Pendulum, RandomMDP, Trial
from metatower.envs.arm import SPLITS
from metatower.envs.references import arm, bandit, gridnavi, mdp, navigation
from metatower.evaluation.statistics import interval
from metatower.evaluation.trials import judge_trials
from metatower.learners.bandit_agents import UCB, BestArm, EpsilonGreedy, Gittins, Greedy, RandomArm, Thompson
from metatower.learners.informed import Oracle, Random
from metatower.learners.psrl import PSRL
from metatower.recipes.rl2_bandits import RL2Bandits


def row(what: str, number: float, known: str, half: float | None = None) -> None:
    """Prints one figure beside the one that is known."""
    print(f"{what:44s} {number:9.3f} {'' if half is None else f'± {half:.3f}':9s}  {known}", flush=True)


def played(what: str, agent: Any, environment: Any, episodes: int, known: str, trials: int, **how) -> None:
    """What an agent gains in the mean, with its 95 % interval."""
    returns = judge_trials(agent, environment, episodes=episodes, trials=trials, seed=0, **how)["return"]
    found = interval(returns)
    row(what, found.mean, known, found.hi - found.mean)


def exact() -> None:
    """The references that are computed, not played."""
    for (pulls, arms), known in {(10, 5): 6.6600, (10, 10): 6.7140, (10, 2): 6.02179, (15, 5): 10.43154}.items():
        row(f"bandit {pulls},{arms}: Bayes-optimal", bandit.bayes_optimal_value(pulls, arms), str(known))
    row("gridnavi: oracle, per episode", gridnavi.oracle_return(GridNavi()), "11.07")
    row("gridnavi: best first episode", gridnavi.best_first_return(GridNavi()), "4.00")
    row("navigation: stay", navigation.stay_return(Navigation()), "-38.26")
    row("navigation: oracle", navigation.oracle_return(Navigation()), "-0.51")
    values = jax.jit(jax.vmap(lambda key: mdp.oracle_return(RandomMDP().sample_task(key), 10)))
    found = interval(values(jax.random.split(jax.random.key(0), 20_000)))
    row("mdp: oracle, per episode", found.mean, "21.85 ± .04", found.hi - found.mean)


BONUSES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
"""Of UCB from the uniform prior."""


def bonuses(trials: int) -> None:
    """Which bonus suits UCB for so many pulls: its returns in the same trials."""
    for pulls, arms in ((10, 5), (10, 10), (100, 5), (100, 10), (100, 50), (500, 5)):
        for bonus in BONUSES:
            played(f"bandit {pulls},{arms}: ucb, {bonus}", UCB(arms, bonus), BernoulliBandit(arms), pulls, "", trials)


KNOWN = {
    (10, 5): {"random": "5.0", "greedy": "6.64 ± .016", "ucb": "6.65 ± .016", "thompson": "5.84", "gittins": "6.6"},
    (10, 10): {"random": "5.0", "greedy": "6.69", "ucb": "6.72", "thompson": "5.57", "gittins": "6.6"},
    (100, 5): {"random": "49.9", "ucb": "78.80 ± .23", "thompson": "74.9", "gittins": "78.3"},
    (100, 10): {"random": "49.9", "ucb": "83.51 ± .16", "thompson": "76.8", "gittins": "82.8"},
}


def bandits(trials: int) -> None:
    """The classical agents on bandits."""
    for (pulls, arms), known in KNOWN.items():
        agents = {
            "random": RandomArm(arms),
            "greedy": Greedy(arms),
            "epsilon-greedy": EpsilonGreedy(arms),
            "ucb1": UCB(arms, 2**0.5, 0.0),
            "ucb": UCB(arms, RL2Bandits(arms=arms, episodes=pulls).bonus),
            "thompson": Thompson(arms),
            "optimistic": Thompson(arms, optimistic=True),
            "gittins": Gittins(arms, bandit.gittins_table(pulls)),
            "oracle": BestArm(arms),
        }
        known = {**known, "oracle": f"{bandit.known_best_value(pulls, arms):.2f}"}
        for name, agent in agents.items():
            played(f"bandit {pulls},{arms}: {name}", agent, BernoulliBandit(arms), pulls, known.get(name, ""), trials)


def others(trials: int) -> None:
    """Agents that are told, or plan, on the other environments."""
    played("mdp 10: random", Random(Discrete(5)), RandomMDP(), 10, "100.1", trials)
    slow = {"together": 1, "chunk": 250}
    played("mdp 10: PSRL", PSRL(), RandomMDP(), 10, "138.1", min(trials, 1000), **slow)
    played("mdp 25: PSRL", PSRL(), RandomMDP(), 25, "408.8", min(trials, 500), **slow)
    played("gridnavi: oracle played, 4 episodes", Oracle(5, gridnavi.oracle_action), GridNavi(), 4, "44.29", trials)
    played("navigation: oracle played", Oracle(2, navigation.oracle_action), Navigation(), 1, "-0.51", trials)
    controllers = {
        "oracle": Oracle(2, arm.computed_torque),
        "computed torque, nominal": Oracle(2, arm.computed_torque, lambda task: arm.nominal()),
        "spring and damper": Oracle(2, arm.proportional, lambda task: arm.nominal()),
    }
    for split in SPLITS:
        for name, agent in controllers.items():
            played(f"arm, {split}: {name}", agent, Arm(split), 1, "", min(trials, 1000))


def speed(lanes: int = 1024) -> None:
    """Steps per second of random actions, everything compiled together."""
    for environment in (BernoulliBandit(5), RandomMDP(), GridNavi(), Navigation(), Arm(), CartPole(), Pendulum()):
        trial = Trial(environment, episodes=max(1, 100 // environment.horizon))

        def one(key, environment=environment, trial=trial):
            task = environment.sample_task(key)

            def move(state, key):
                key_act, key_step = fork(key, 2)
                state, _, outcome = trial.step(key_step, state, environment.actions.sample(key_act), task)
                return state, outcome.reward

            return jnp.sum(jax.lax.scan(move, trial.start(key, task)[0], fork(key, trial.length))[1])

        run = jax.jit(jax.vmap(one))
        keys = jax.random.split(jax.random.key(0), lanes)
        jax.block_until_ready(run(keys))
        best = 0.0
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(run(keys))
            best = max(best, lanes * trial.length / (time.perf_counter() - start))
        row(f"{type(environment).__name__}: million steps per second", best / 1e6, "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--bonuses", action="store_true", help="only which bonus suits UCB")
    arguments = parser.parse_args()
    if arguments.bonuses:
        bonuses(arguments.trials)
    else:
        exact()
        bandits(arguments.trials)
        others(arguments.trials)
        speed()
