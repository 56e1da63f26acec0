"""Independent PPO: every agent learns for itself, as if the others were part of the world.

C. S. de Witt et al., "Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?"
(2020).
"""

from dataclasses import dataclass
from typing import Any

from kiloworlds.algorithms.agents_ppo import AgentsPPO, AgentsPPOConfig
from kiloworlds.algorithms.experience import Team


@dataclass(frozen=True)
class IPPOConfig(AgentsPPOConfig):
    """Settings of independent PPO."""


def ippo(config: IPPOConfig, team: Team, **axes: Any) -> AgentsPPO:
    """PPO whose value functions see what their policies see."""
    return AgentsPPO(config, team, **axes)
