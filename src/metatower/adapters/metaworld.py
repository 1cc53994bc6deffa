"""Meta-World as worlds: one environment of Gymnasium per task, whose goal is hidden and stays."""

import importlib.metadata
from typing import Any

try:
    import metaworld
except ImportError as error:
    raise ImportError("This adapter needs Meta-World 3: pip install 'metatower[metaworld]'.") from error

from metatower.core.errors import UserError

BENCHMARKS = ("ML1", "ML10", "ML45")
SPLITS = ("train", "test")


class MetaWorld:
    """The tasks of a benchmark of Meta-World (Yu et al. 2019, https://arxiv.org/abs/1910.10897).

    `HostTrial(MetaWorld("ML1", "reach-v3").world(0), episodes=10)` is a trial as its protocol has it, ten episodes of
    500 steps. Rewards and environments are those of the installed version: name it (`version`) with every number.

    Args:
        benchmark: "ML1", "ML10" or "ML45".
        name: of the environment, such as "reach-v3"; needed by ML1, which has one.
        split: "train" or "test".
        seed: of the benchmark: which goals there are.

    Attributes:
        tasks: of the split, each an environment's name and its goal, packed.

    Raises:
        UserError: an unknown benchmark, split or environment.
    """

    version = importlib.metadata.version("metaworld")

    def __init__(self, benchmark: str = "ML1", name: str | None = None, *, split: str = "train", seed: int = 0):
        if benchmark not in BENCHMARKS or split not in SPLITS:
            raise UserError(
                f"Expected a benchmark among {', '.join(BENCHMARKS)} and a split among {', '.join(SPLITS)}, got "
                f"{benchmark!r} and {split!r}."
            )
        if (name is None) == (benchmark == "ML1"):
            raise UserError(f"{benchmark}: name an environment for ML1, such as 'reach-v3', and for ML1 alone.")
        try:
            made = getattr(metaworld, benchmark)(*([] if name is None else [name]), seed=seed)
        except ValueError as error:
            raise UserError(f"Meta-World has no such environment: {error}.") from error
        self._classes = getattr(made, f"{split}_classes")
        self.tasks = list(getattr(made, f"{split}_tasks"))

    def __len__(self) -> int:
        return len(self.tasks)

    def world(self, index: int) -> Any:
        """The environment of a task: a `gymnasium.Env` that keeps its goal in every reset and hides it.

        Raises:
            UserError: there is no such task.
        """
        if not 0 <= index < len(self):
            raise UserError(f"Expected a task from 0 to {len(self) - 1}, got {index}.")
        task = self.tasks[index]
        env = self._classes[task.env_name]()
        env.set_task(task)
        return env


def succeeded(infos: list[dict[str, Any]]) -> bool:
    """Whether an episode counts as a success: the flag was 1 at any step."""
    return any(info.get("success", 0) > 0 for info in infos)
