"""How trainings end, and the scale on which different tasks can be averaged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from kiloworlds.core.random import fast_key
from kiloworlds.evaluation.comparison import RETURN, Comparison, Entry
from kiloworlds.evaluation.statistics import (
    Aggregates,
    Estimate,
    Scores,
    aggregate,
    estimate,
    normalized,
    probability_of_improvement,
)
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.evaluate import EVALUATION_SEED, evaluate, evaluate_all
from kiloworlds.training.policy import Policy
from kiloworlds.training.run import Run

ENOUGH_SEEDS = 5
"""Fewer do not carry a verdict on which of two trainings is better."""

_EPISODES_OF_THE_UNTRAINED = 64


class Scale(NamedTuple):
    """What 0 and 1 are on a task: the return of an untrained policy, and the goal.

    Attributes:
        goal_is: what the goal is, in words.
    """

    zero: float
    one: float
    goal_is: str


@dataclass(frozen=True)
class Verdict:
    """Whether one training is better than another.

    Attributes:
        first, second: their labels.
        probability: that a seed of the first does better than one of the second, averaged over the
            tasks.
        seeds: the fewest of either on a task.
        env_ids: the tasks, those that both have.
    """

    first: str
    second: str
    probability: Estimate
    seeds: int
    env_ids: tuple[str, ...]

    @property
    def likelier_first(self) -> "Verdict":
        """The same, told of the training that more likely does better."""
        value, low, high = self.probability
        if value >= 0.5:
            return self
        # Ties count as half, so that the two probabilities add up to 1.
        ends = (None, None) if low is None or high is None else (1 - high, 1 - low)
        return replace(
            self, first=self.second, second=self.first, probability=Estimate(1 - value, *ends)
        )

    @property
    def words(self) -> str:
        """ "better", "worse", or why neither is said."""
        if self.probability.low is None or self.probability.high is None:
            return "one seed tells nothing of others"
        if self.seeds < ENOUGH_SEEDS:
            return f"no verdict on {self.seeds} seeds; {ENOUGH_SEEDS} carry one"
        if self.probability.low > 0.5:
            return "better"
        return "worse" if self.probability.high < 0.5 else "not told apart"


Finals = dict[tuple[str, str], Float[np.ndarray, " seeds"]]
"""By label and task."""


def final_values(comparison: Comparison, episodes: int | None = None) -> Finals:
    """How each seed of each entry ends; those without a value are left out, and remarked upon.

    Args:
        comparison: its metric's mean over the end of training (see `Entry.final`), unless
        episodes: are given: then the mean return of so many, played by each seed's final policy by
            its most likely actions, in the same environments for all.
    """
    finals, single = {}, []
    for key, entry in comparison.entries.items():
        values = entry.final if episodes is None else _evaluated(entry, episodes)
        known = np.isfinite(values)
        if len(values) < len(entry.seeds):
            comparison.remarks.append(
                f"{comparison.metric} of {entry.label} on {entry.env_id} is one number of all seeds of "
                "a run, and counts as one seed."
            )
        elif not known.all():
            lacking = [
                str(seed) for seed, is_known in zip(entry.seeds, known, strict=True) if not is_known
            ]
            comparison.remarks.append(
                f"{entry.label} on {entry.env_id}: seeds {', '.join(lacking)} end without a value and "
                "are left out, which flatters it."
            )
        finals[key] = values[known]
        if len(finals[key]) == 1 and len(values) == len(entry.seeds):
            single.append(f"{entry.label} on {entry.env_id}")
    if single:
        comparison.remarks.append(
            f"No interval is given for one seed ({', '.join(single)}), which tells nothing of how "
            f"much seeds differ; train with --num-seeds {ENOUGH_SEEDS} or more."
        )
    return finals


def _evaluated(entry: Entry, episodes: int) -> Float[np.ndarray, " seeds"]:
    returns = []
    for run, columns in zip(entry.runs, entry.columns, strict=True):
        policies = [run.policy.select_seed(index) for index in columns]
        played = evaluate_all(run, episodes, EVALUATION_SEED, policies)
        returns += [each.mean_return for each in played]
    return np.array(returns)


def interquartile_means(finals: Finals) -> dict[tuple[str, str], Estimate]:
    """Of the seeds of each entry, in the units of its task; NaN where no seed has a value."""
    nothing = Estimate(float("nan"), None, None)
    return {key: estimate(values) if len(values) else nothing for key, values in finals.items()}


def scale_of(comparison: Comparison, env_id: str, finals: Finals) -> Scale | None:
    """The scale of a task; None where there is none: other metrics than returns have no goal."""
    if comparison.metric != RETURN:
        return None
    entries = comparison.of(env_id)
    zero = untrained_return(entries[0].runs[0])
    threshold = comparison.threshold(env_id)
    if threshold is not None:
        one, goal_is = threshold, "the return that solves the task"
    else:
        ends = [finals[entry.label, env_id] for entry in entries]
        one = max((float(values.mean()) for values in ends if len(values)), default=zero)
        goal_is = "the best mean return here"
    return Scale(zero, one, goal_is) if one > zero else None


def untrained_return(run: Run, episodes: int = _EPISODES_OF_THE_UNTRAINED) -> float:
    """The mean return of a policy before its first update, which acts almost at random."""
    policy = run.policy
    states = jax.jit(jax.vmap(policy.algorithm.init))(jax.random.split(fast_key(0), 1))
    kind = AgentsPolicy if isinstance(policy, AgentsPolicy) else Policy
    untrained = kind(policy.algorithm, states)  # type: ignore[arg-type]
    return evaluate(run, episodes, seed=20_000, deterministic=False, policy=untrained).mean_return


def on_one_scale(
    comparison: Comparison, finals: Finals, scales: Mapping[str, Scale]
) -> dict[str, Scores]:
    """Each label's normalized scores on the tasks that all labels have, where there is a scale."""
    tasks = [
        env_id
        for env_id in comparison.shared
        if env_id in scales and all(len(finals[label, env_id]) for label in comparison.labels)
    ]
    return {
        label: [
            normalized(finals[label, env_id], zero=scales[env_id].zero, one=scales[env_id].one)
            for env_id in tasks
        ]
        for label in comparison.labels
        if tasks
    }


def aggregates(scores: Mapping[str, Scores]) -> dict[str, Aggregates]:
    """See `kiloworlds.evaluation.statistics.aggregate`; none of no scores."""
    return aggregate(scores) if scores else {}


def verdicts(comparison: Comparison, finals: Finals) -> list[Verdict]:
    """The first label against each of the others, over the tasks that both have.

    Values are compared within a task only, so they need no common scale.
    """
    first, *others = comparison.labels
    told = []
    for other in others:
        tasks = [
            env_id
            for env_id in comparison.env_ids
            if len(finals.get((first, env_id), ())) and len(finals.get((other, env_id), ()))
        ]
        if not tasks:
            continue
        pairs = [(finals[first, env_id], finals[other, env_id]) for env_id in tasks]
        ours, theirs = zip(*pairs, strict=True)
        probability = probability_of_improvement(ours, theirs)
        seeds = min(len(values) for pair in pairs for values in pair)
        told.append(Verdict(first, other, probability, seeds, tuple(tasks)))
    return told
