"""The trained agents that come with the package, on trials of their own recipe."""

from pathlib import Path

import pytest

import metatower
from metatower.evaluation.statistics import interval
from metatower.evaluation.trials import judge_trials
from metatower.recipes.run import load, recipe_of

AGENTS = Path(metatower.__file__).parent / "agents"
LEAST = {"rl2-bandit-10-5": 6.5}
"""What the upper end of the interval must exceed: the card's value, less what 2,000 trials may be off."""


@pytest.mark.parametrize("name", sorted(path.name for path in AGENTS.iterdir() if path.is_dir()))
def test_has_a_card_and_plays_as_well_as_it_says(name):
    card = (AGENTS / name / "card.md").read_text()
    for word in ("Licence", "Data", "Protocol", "Return", "Command"):
        assert f"**{word}**" in card
    recipe, agent = recipe_of(AGENTS / name), load(AGENTS / name)
    found = judge_trials(agent, recipe.environment(), episodes=recipe.episodes, trials=2000, seed=77)["return"]
    assert interval(found).mean > LEAST[name]
