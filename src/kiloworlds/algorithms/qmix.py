"""QMIX: the team's value is a monotonic function of its agents' (Rashid et al., "QMIX: Monotonic Value
Function Factorisation for Deep Multi-Agent Reinforcement Learning", 2018)."""

import math
from dataclasses import dataclass
from typing import Any

from kiloworlds.algorithms.experience import Team, width_side_by_side
from kiloworlds.algorithms.q_replay import QReplay, QReplayConfig
from kiloworlds.core.checks import require_number
from kiloworlds.networks.mixing import MonotonicMixer


@dataclass(frozen=True)
class QMIXConfig(QReplayConfig):
    """Settings of QMIX."""

    mixing_size: int = 32
    """Hidden units of the mixing network."""
    hyper_size: int = 64
    """Hidden units of the networks that compute the mixing network's weights."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("mixing_size", "hyper_size"):
            require_number(name, getattr(self, name), 1, whole=True)


def qmix(config: QMIXConfig, team: Team, **axes: Any) -> QReplay:
    """All agents learn from the reward of the team; their values are mixed depending on the state."""
    space = team.global_state_space
    state_size = width_side_by_side(team.kinds) if space is None else math.prod(space.shape)
    num_agents = sum(len(kind.agents) for kind in team.kinds)

    def init_mixer(key):
        return MonotonicMixer(key, num_agents, state_size, config.mixing_size, config.hyper_size)

    def mix(mixer, values, state):
        return mixer(values, state)

    return QReplay(config, team, "qmix", mix, init_mixer, **axes)
