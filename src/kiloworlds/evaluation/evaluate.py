"""How well the policies of a run play, seed by seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from kiloworlds.core.statistics import bootstrap_interval
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.evaluate import Evaluation, evaluate_all

if TYPE_CHECKING:
    from kiloworlds.training.run import Run


@dataclass(frozen=True)
class RunEvaluation:
    """Episodes of each policy of a run.

    Attributes:
        seed_indices: which of the run's seeds were played.
        returns, lengths: one row per policy, one entry per episode.
    """

    seed_indices: tuple[int, ...]
    returns: Float[np.ndarray, "seeds episodes"]
    lengths: Int[np.ndarray, "seeds episodes"]
    cut: int = 0
    """Episodes that did not end in time and count as far as they went."""
    agent_returns: dict[str, float] = field(default_factory=dict)
    """Of several agents each one's mean return, by name; then `returns` are means over agents."""
    win_rate: float | None = None
    """The share of the episodes that were won, where the environment says so."""
    played: tuple[Evaluation, ...] = field(default=(), repr=False)
    """Of each policy."""

    def of(self, places: Sequence[int]) -> "RunEvaluation":
        """The same of some of the policies, by their places among those that played."""
        return _gather([self.seed_indices[at] for at in places], [self.played[at] for at in places])

    @property
    def mean_return(self) -> float:
        """Over all policies and episodes."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% bootstrap interval of `mean_return`.

        Over episodes for one policy; over policies for several, since episodes of one policy are
        not independent draws of what training leads to.
        """
        several = len(self.seed_indices) > 1
        interval = bootstrap_interval(self.returns.mean(axis=1) if several else self.returns[0])
        return interval.low, interval.high


class EntryEvaluation(NamedTuple):
    """One entry of a population: policies with the same settings.

    Attributes:
        name: its settings in words.
        first: where its policies begin among the run's.
        evaluation: of them.
    """

    name: str
    first: int
    evaluation: RunEvaluation

    @property
    def mean_return(self) -> float:
        """Over all its seeds and episodes."""
        return self.evaluation.mean_return

    @property
    def seed_returns(self) -> Float[np.ndarray, " seeds"]:
        """Each seed's mean return."""
        return self.evaluation.returns.mean(axis=1)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% bootstrap interval of the mean return, over seeds; None of one seed."""
        return self.evaluation.interval if len(self.evaluation.seed_indices) > 1 else None


def entries_of(config: TrainConfig, evaluation: RunEvaluation) -> list[EntryEvaluation]:
    """What each entry of a population reaches; [] without one, or where one policy played alone.

    Over all entries there is no interval: their settings were chosen, not drawn.
    """
    if not config.population or len(evaluation.seed_indices) < config.num_members:
        return []
    return [
        EntryEvaluation(name, members[0], evaluation.of(members))
        for name, members in zip(config.entry_names, config.entry_members, strict=True)
    ]


def best_of(entries: Sequence[EntryEvaluation]) -> EntryEvaluation | None:
    """The entry of the highest mean return; None of none."""
    return max(entries, key=lambda entry: entry.mean_return, default=None)


def evaluate_run(
    run: "Run",
    *,
    episodes: int = 100,
    seed: int = 10_000,
    seed_index: int | None = None,
    deterministic: bool = True,
    env_kwargs: dict[str, Any] | None = None,
) -> RunEvaluation:
    """Plays whole episodes with the policy of every seed, or of the one at `seed_index`.

    Args:
        episodes: per policy.
        seed: environments are seeded from it on, the same for every policy.
        env_kwargs: parameters of the environment other than those it was trained in.

    Raises:
        InvalidValueError: a seed index the run does not have, or fewer episodes than 1.
    """
    indices = range(run.policy.num_seeds) if seed_index is None else (seed_index,)
    policies = [run.policy.select_seed(index) for index in indices]
    results = evaluate_all(run, episodes, seed, policies, deterministic, env_kwargs)
    return _gather(indices, results)


def _gather(indices: Sequence[int], results: Sequence[Evaluation]) -> RunEvaluation:
    rates = [result.win_rate for result in results if result.win_rate is not None]
    return RunEvaluation(
        tuple(indices),
        np.stack([result.returns for result in results]),
        np.stack([result.lengths for result in results]),
        sum(result.cut for result in results),
        _agent_returns(results),
        float(np.mean(rates)) if rates else None,
        tuple(results),
    )


def _agent_returns(results: Sequence[Evaluation]) -> dict[str, float]:
    """Each agent's mean return over all policies and episodes; {} for a single agent."""
    by_agent = [each.agent_returns for each in results if each.agent_returns is not None]
    if not by_agent:
        return {}
    means = np.concatenate(by_agent).mean(axis=0)
    return {name: float(mean) for name, mean in zip(results[0].agents, means, strict=True)}
