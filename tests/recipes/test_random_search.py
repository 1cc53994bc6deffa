import json

import pytest

from metatower.recipes.random_search import RandomSearch
from metatower.training.beside import beside
from metatower.training.progress import Silent

SCORES = {(0.1, 1.0): 3.0, (0.2, 1.0): float("inf"), (0.3, 1.0): 1.0, (0.4, 1.0): 2.0}
CANDIDATES = {rates: f"the learner of {rates[0]}" for rates in SCORES}


class Trials:
    """Scores of the candidates, which fail from some trial on."""

    def __init__(self, most=100):
        self.made, self.most = [], most

    def __call__(self, learner, show):
        if len(self.made) == self.most:
            raise KeyboardInterrupt
        self.made.append(learner)
        return next(score for rates, score in SCORES.items() if CANDIDATES[rates] == learner)


def test_the_best_is_found_and_every_candidate_is_tried_once():
    trials = Trials()
    search = RandomSearch(CANDIDATES, trials)
    assert search.best(Silent()) == search.best(Silent()) == (0.3, 1.0)
    assert trials.made == list(CANDIDATES.values())


def test_trials_made_beside_other_work_are_not_made_again():
    trials = Trials()
    search = RandomSearch(CANDIDATES, trials)
    first, second, *_ = search.jobs()
    with beside(first, second):
        pass
    for job in search.jobs():
        job()
    assert search.best(Silent()) == (0.3, 1.0)
    assert sorted(trials.made) == sorted(CANDIDATES.values())
    assert search.jobs() == []


def test_a_search_that_is_interrupted_goes_on_where_it_was(tmp_path):
    path = tmp_path / "baselines" / "random-search.json"
    with pytest.raises(KeyboardInterrupt):
        RandomSearch(CANDIDATES, Trials(most=2), path).best(Silent())
    # what failed is kept as such, in standard JSON
    assert json.loads(path.read_text())["trials"] == [[0.1, 1.0, 3.0], [0.2, 1.0, None]]
    trials = Trials()
    assert RandomSearch(CANDIDATES, trials, path).best(Silent()) == (0.3, 1.0)
    assert trials.made == list(CANDIDATES.values())[2:]
    # all done: no trial at all, and the same answer
    assert RandomSearch(CANDIDATES, Trials(most=0), path).best(Silent()) == (0.3, 1.0)
