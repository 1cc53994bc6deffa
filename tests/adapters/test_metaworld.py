"""Tasks of Meta-World through the adapter of Gymnasium."""

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs Meta-World: pip install 'metatower[metaworld]'")

from metatower.adapters.gymnasium import HostTrial
from metatower.adapters.metaworld import MetaWorld, succeeded
from metatower.core.errors import UserError
from metatower.envs import Box


@pytest.fixture(scope="module")
def reach():
    return MetaWorld("ML1", "reach-v3")


def test_a_reach_task_is_stepped_over_episodes_and_keeps_its_hidden_goal(reach):
    assert len(reach) == 50
    env = reach.world(3)
    trial = HostTrial(env, episodes=2)
    assert trial.observation_shape == (39,)
    assert trial.actions == Box((-1.0,) * 4, (1.0,) * 4, (4,))
    seen, random, ends, goals = trial.start(0), np.random.default_rng(0), [], []
    for _ in range(1000):
        assert (seen.observation[0, -3:] == 0).all()  # the goal is not shown
        seen, outcome = trial.step(random.uniform(-1, 1, (1, 4)).astype(np.float32))
        goals.append(tuple(env._target_pos))
        if outcome.truncated[0] or outcome.terminated[0]:
            ends.append((len(goals), bool(outcome.terminated[0]), bool(outcome.over[0])))
        assert np.isfinite(outcome.reward).all()
    assert ends == [(500, False, False), (1000, False, True)]
    assert len(set(goals)) == 1


def test_tasks_differ_and_splits_share_none(reach):
    test = MetaWorld("ML1", "reach-v3", split="test")

    def goals(worlds):
        found = set()
        for index in (0, 1, 2):
            env = worlds.world(index)
            env.reset(seed=0)
            found.add(tuple(env._target_pos.round(6)))
        return found

    assert len(goals(reach)) == 3
    assert not goals(reach) & goals(test)


def test_what_counts_as_a_success():
    assert succeeded([{"success": 0.0}, {"success": 1.0}, {"success": 0.0}])
    assert not succeeded([{"success": 0.0}])


@pytest.mark.parametrize(
    ("how", "error"),
    [
        (("ML2",), "a benchmark among ML1, ML10, ML45"),
        (("ML1",), "name an environment for ML1"),
        (("ML1", "fly-v3"), "no such environment: fly-v3"),
    ],
)
def test_what_is_not_there(how, error):
    with pytest.raises(UserError, match=error):
        MetaWorld(*how)
