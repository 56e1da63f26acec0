"""What a reader of a comparison may look for and not find, and why."""

from collections.abc import Sequence

from kiloworlds.evaluation.comparison import RETURN, Comparison
from kiloworlds.evaluation.scores import Verdict

_NEED = "aggregates.png and profiles.png need two tasks or more"


def unsaid(
    comparison: Comparison,
    judged: Sequence[Verdict],
    *,
    has_aggregates: bool,
    episodes: int | None,
) -> list[str]:
    """Sentences on what is not told or drawn.

    Args:
        comparison: of which.
        judged: the verdicts on it.
        has_aggregates: whether it has aggregates over tasks.
        episodes: that each final policy played; None if returns are those of training.
    """
    told = []
    if comparison.metric == RETURN:
        if len(comparison.env_ids) > 1 and not has_aggregates:
            told.append(_no_aggregates(comparison))
        told += _not_judged(comparison, judged)
    elif len(comparison.labels) > 1:
        told.append(
            f"There is no verdict: nothing says whether more of {comparison.metric} is better."
        )
    if episodes is not None:
        told.append(
            f"curves.png shows returns during training, not those of the {episodes} episodes."
        )
    return told


def _no_aggregates(comparison: Comparison) -> str:
    shared = comparison.shared
    if len(shared) > 1:
        return (
            f"{_NEED} on which a goal lies above an untrained policy's return and every training has "
            "values."
        )
    have = f"only {shared[0]} is one" if shared else "there is none"
    return (
        f"{_NEED} that every training has; {have}. Trainings are named by what differs from the preset "
        "of their task, total_steps among it: give them the same changes on each task."
    )


def _not_judged(comparison: Comparison, judged: Sequence[Verdict]) -> list[str]:
    first, *others = comparison.labels
    told = []
    if len(others) > 1:
        told.append(f"Only pairs with {first}, the first training, are judged.")
    judged_others = {verdict.second for verdict in judged}
    missing = [label for label in others if label not in judged_others]
    if missing:
        told.append(f"No task has values of both {first} and {', '.join(missing)}: no verdict.")
    return told
