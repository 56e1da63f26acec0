"""Value decomposition networks: the team's value is the sum of its agents' (Sunehag et al.,
"Value-Decomposition Networks For Cooperative Multi-Agent Learning", 2018)."""

from dataclasses import dataclass
from typing import Any

from kiloworlds.algorithms.experience import Team
from kiloworlds.algorithms.q_replay import QReplay, QReplayConfig


@dataclass(frozen=True)
class VDNConfig(QReplayConfig):
    """Settings of value decomposition networks."""


def vdn(config: VDNConfig, team: Team, **axes: Any) -> QReplay:
    """All agents learn from the reward of the team, to whose value each adds its own."""
    return QReplay(config, team, "vdn", mix=lambda _, values, state: values.sum(-1), **axes)
