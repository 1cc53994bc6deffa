"""The trained agents that come with the package, in fresh worlds of their own recipe."""

from pathlib import Path

import pytest

import metatower
from metatower.core.errors import UserError
from metatower.recipes.judge import judge

AGENTS = Path(metatower.__file__).parent / "agents"
LEAST = {
    "rl2-bandit-10-5": 6.45,
    "rl2-bandit-100-5": 76.0,
    "rl2-mdp-10": 155.0,
    "rl2-gridnavi": 35.5,
    "rl2-arm": -13.0,
    "maml-navigation": -16.0,
}
"""The card's value, less what so few trials may be off."""


def test_can_be_named_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = judge(Path("rl2-bandit-10-5"), episodes=10)
    assert any(row.name == "RL²" for row in found.results)
    with pytest.raises(UserError, match=r"no model of this name comes with the package .*rl2-mdp-10"):
        judge(Path("rl2-mdp-11"))


@pytest.mark.parametrize("name", sorted(path.name for path in AGENTS.iterdir() if path.is_dir()))
def test_has_a_card_and_plays_as_well_as_it_says(name):
    card = (AGENTS / name / "card.md").read_text()
    for word in ("Licence", "Data", "Protocol", "Return", "Command"):
        assert f"**{word}**" in card
    found = judge(AGENTS / name, episodes=100 if name in ("maml-navigation", "rl2-arm") else 1000, seed=77)
    row = next(row for row in found.results if row.name in ("RL²", "RL², training", "MAML, after 1 step"))
    assert row.mean > LEAST[name]
