"""Judging learners: episodes, intervals, comparisons, plots and reports."""

from metatower.evaluation.conclusion import Conclusion as Conclusion
from metatower.evaluation.episodes import adaptation_curve as adaptation_curve
from metatower.evaluation.episodes import adaptation_scores as adaptation_scores
from metatower.evaluation.episodes import evaluate as evaluate
from metatower.evaluation.episodes import scores_after as scores_after
from metatower.evaluation.gradient_health import gradient_health as gradient_health
from metatower.evaluation.gradient_health import recommend as recommend
from metatower.evaluation.statistics import interval as interval
from metatower.evaluation.statistics import paired as paired
