"""Independent Q-learning: every agent learns the values of its own actions (Tan, "Multi-Agent
Reinforcement Learning: Independent vs. Cooperative Agents", 1993), with deep networks, a replay and
double Q-learning."""

from dataclasses import dataclass
from typing import Any

from kiloworlds.algorithms.experience import Team
from kiloworlds.algorithms.q_replay import QReplay, QReplayConfig


@dataclass(frozen=True)
class IQLConfig(QReplayConfig):
    """Settings of independent Q-learning."""


def iql(config: IQLConfig, team: Team, **axes: Any) -> QReplay:
    """Each agent learns from its own reward."""
    return QReplay(config, team, "iql", mix=None, **axes)
