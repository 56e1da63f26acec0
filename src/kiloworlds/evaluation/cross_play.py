"""Agents of separate trainings playing together, who have never met: the cross-play matrix.

Policies that only work with their own partners have learnt conventions, not the game (Hu et al., "Other-
Play for Zero-Shot Coordination", 2020).

Letters in shapes: S seeds, N environments, A agents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from kiloworlds.algorithms.experience import KindLayout
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.axes import figure_of
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.evaluate import evaluate

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

_THE_OTHERS = "the other agents"


@dataclass(frozen=True)
class CrossPlay:
    """How seeds of a run play with each other.

    Attributes:
        seeds: the numbers of the seeds.
        names: of the trainings, such as "seed 2", or of a population "learning_rate=0.001, seed 2".
        returns: `[S, S]`, the mean return where the first agent, or the first kind of agents, plays by
            the policy of the row's seed and all others by that of the column's: the mean over all
            agents, or over those of the first kind.
        own, others: what is on the rows and on the columns, in words.
        episodes: played for each entry.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    returns: Float[np.ndarray, "S S"]
    own: str
    others: str
    episodes: int

    @property
    def measured(self) -> str:
        """Whose return is told, in words."""
        return "all agents" if self.others == _THE_OTHERS else self.own

    @property
    def self_play(self) -> float:
        """The mean return where all are of one seed."""
        return float(np.diag(self.returns).mean())

    @property
    def cross_play(self) -> float:
        """The mean return where two seeds meet."""
        apart = ~np.eye(len(self.seeds), dtype=bool)
        return float(self.returns[apart].mean())


def cross_play(run: "Run", episodes: int = 64, seed: int = 10_000) -> CrossPlay:
    """Lets every seed of a run play with every other.

    Raises:
        InvalidValueError: a run of a single agent, or of a single seed.
    """
    policy = run.policy
    if not isinstance(policy, AgentsPolicy):
        raise InvalidValueError("cross-play needs several agents, and this run trained one.")
    if policy.num_seeds < 2:
        raise InvalidValueError(
            "cross-play needs several seeds to play with each other, and this run has one: train with "
            "--num-seeds 2 or more."
        )
    layout = policy.algorithm.layout
    count = policy.num_seeds
    # Of two kinds, which may be opponents, the first one's return; of one kind, the mean over all.
    measured = slice(layout.sizes[0])
    returns = np.zeros((count, count))
    for row in range(count):
        for column in range(count):
            pair = PairedPolicies(policy.select_seed(row), policy.select_seed(column))
            played = evaluate(run, episodes, seed, policy=pair)  # type: ignore[arg-type]
            assert played.agent_returns is not None
            returns[row, column] = played.agent_returns[:, measured].mean()
    own, others = _sides(layout)
    config = TrainConfig.from_dict(run.config)
    seeds = tuple(config.member(index)[1] for index in range(count))
    return CrossPlay(seeds, config.member_names, returns, own, others, episodes)


def _sides(layout: KindLayout) -> tuple[str, str]:
    """What plays by the first policy, and what by the second."""
    first, *others = layout.names
    if others:
        return first, " and ".join(others)
    (kind,) = layout.kinds
    return kind.agents[0], _THE_OTHERS


class PairedPolicies:
    """Two seeds' policies together: the first plays the first agent, or the first kind of agents, the
    second all others."""

    def __init__(self, first: AgentsPolicy, second: AgentsPolicy):
        self._first, self._second = first, second
        self._layout = first.algorithm.layout

    def check_fits(self, kinds: Sequence[AgentKind]) -> None:
        """See `AgentsPolicy.check_fits`."""
        self._first.check_fits(kinds)

    def reset(self) -> None:
        """Forgets what was seen so far."""
        self._first.reset()
        self._second.reset()

    def act(self, observations: Any, deterministic: bool = True, infos: Any = None) -> Any:
        """See `AgentsPolicy.act`."""
        ours = self._first.act(observations, deterministic, infos)
        theirs = self._second.act(observations, deterministic, infos)
        if len(self._layout.kinds) > 1:
            return {**theirs, self._layout.names[0]: ours[self._layout.names[0]]}

        def join(own: np.ndarray, others: np.ndarray) -> np.ndarray:
            joined = np.array(others)
            joined[:, 0] = own[:, 0]
            return joined

        return jax.tree.map(join, ours, theirs)


def plot_cross_play(result: CrossPlay, title: str) -> Figure:
    """Draws the matrix, brighter for higher returns, with the numbers in its cells."""
    count = len(result.seeds)
    are_seeds = all(name.startswith("seed ") for name in result.names)
    room = 0.0 if are_seeds else 1.6  # inches for long names
    what = "seed" if are_seeds else "training"
    figure = figure_of(2.6 + room + 0.75 * count, 2.0 + room + 0.62 * count)
    axes = figure.subplots()
    image = axes.imshow(result.returns, cmap="cividis")
    middle = (result.returns.min() + result.returns.max()) / 2
    for row in range(count):
        for column in range(count):
            value = result.returns[row, column]
            color = "black" if value > middle else "white"
            words = f"{value:#.3g}".rstrip(".")
            axes.text(column, row, words, ha="center", va="center", color=color, size=9)
    names = [name.removeprefix("seed ").replace(", ", "\n") for name in result.names]
    axes.set_xticks(range(count), names, rotation=0 if are_seeds else 90)
    axes.set_yticks(range(count), names)
    axes.set_xlabel(f"{what} of {result.others}")
    axes.set_ylabel(f"{what} of {result.own}")
    axes.set_title(
        f"{title}\nof one {what} {result.self_play:.3g}, of two {result.cross_play:.3g}", size=10
    )
    figure.colorbar(image, ax=axes, label=f"mean return of {result.measured}")
    return figure
