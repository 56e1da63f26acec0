"""Multi-agent PPO: decentralised policies, taught by value functions that see the state of the world.

C. Yu et al., "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games" (2022).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from kiloworlds.algorithms.agents_ppo import AgentsPPO, AgentsPPOConfig
from kiloworlds.algorithms.experience import Team


@dataclass(frozen=True)
class MAPPOConfig(AgentsPPOConfig):
    """Settings of multi-agent PPO."""

    is_centralised: ClassVar[bool] = True


def mappo(config: MAPPOConfig, team: Team, **axes: Any) -> AgentsPPO:
    """PPO whose value functions see the global state, or what all agents observe.

    Of a team with one reward the value goes on after the death of an agent, whose policy then learns no
    more.
    """
    return AgentsPPO(config, team, **axes)
