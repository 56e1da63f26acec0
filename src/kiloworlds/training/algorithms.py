"""Which algorithm and which loop train what."""

from collections.abc import Callable
from typing import Any

from kiloworlds.algorithms.experience import Team
from kiloworlds.algorithms.ippo import ippo
from kiloworlds.algorithms.iql import iql
from kiloworlds.algorithms.mappo import mappo
from kiloworlds.algorithms.ppo import PPO
from kiloworlds.algorithms.pqn_vdn import pqn_vdn
from kiloworlds.algorithms.protocol import AgentsAlgorithm
from kiloworlds.algorithms.qmix import qmix
from kiloworlds.algorithms.self_play import self_play
from kiloworlds.algorithms.vdn import vdn
from kiloworlds.core.environment import AgentKind, Environment, MultiAgentEnvironment
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import from_gymnasium
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused import FusedTraining
from kiloworlds.training.loops.fused_agents import FusedAgentsTraining
from kiloworlds.training.loops.fused_loop import FusedLoop
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.loops.host_agents import HostAgentsTraining
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.pettingzoo import PettingZooVectorEnv

AGENTS: dict[str, Callable[..., Any]] = {
    "ippo": ippo,
    "mappo": mappo,
    "iql": iql,
    "vdn": vdn,
    "qmix": qmix,
    "pqn_vdn": pqn_vdn,
    "self_play": self_play,
}
"""What builds the algorithms for several agents."""


def fused_training(
    config: TrainConfig, env: Environment, reference: Environment | None = None
) -> FusedLoop:
    """The fused loop that fits the algorithm and the environment.

    Raises:
        InvalidValueError: an algorithm for one agent and an environment of several, or the reverse.
    """
    has_several = isinstance(env, MultiAgentEnvironment)
    check_agents(config, env.num_agents if isinstance(env, MultiAgentEnvironment) else None)
    if has_several:
        return FusedAgentsTraining(AGENTS[config.algorithm], config, env, reference)
    return FusedTraining(config, env, reference)


def host_training(config: TrainConfig, envs: VectorEnv) -> HostTraining | HostAgentsTraining:
    """The loop on the host that fits the algorithm and the environments.

    Raises:
        InvalidValueError: an algorithm for one agent and environments of several, or the reverse.
    """
    algorithm = algorithm_for(config, envs)
    if isinstance(envs, PettingZooVectorEnv):
        return HostAgentsTraining(algorithm, config, envs)  # type: ignore[arg-type]
    return HostTraining(config, envs)


def algorithm_for(config: TrainConfig, envs: VectorEnv) -> PPO | AgentsAlgorithm:
    """The algorithm for the agent, or the agents, of a vector."""
    team = team_of(envs)
    check_agents(config, None if team is None else sum(len(kind.agents) for kind in team.kinds))
    if team is not None:
        return AGENTS[config.algorithm](config.settings, team)
    return PPO(
        config.settings,
        from_gymnasium(envs.single_observation_space),
        from_gymnasium(envs.single_action_space),
    )


def team_of(envs: VectorEnv) -> Team | None:
    """The agents of a vector; None where there is a single one."""
    if isinstance(envs, CompiledVectorEnv):
        return Team.of(envs.env) if isinstance(envs.env, MultiAgentEnvironment) else None
    if not isinstance(envs, PettingZooVectorEnv):
        return None
    kinds = tuple(
        AgentKind(
            kind.name,
            tuple(map(str, kind.agents)),
            from_gymnasium(kind.observation_space),
            from_gymnasium(kind.action_space),
        )
        for kind in envs.kinds.values()
    )
    return Team(kinds, False, None)


def check_agents(config: TrainConfig, num_agents: int | None) -> None:
    """Raises InvalidValueError unless the algorithm is for so many agents; None: a single one."""
    for_several = config.algorithm in AGENTS
    if for_several == (num_agents is not None):
        return
    if for_several:
        raise InvalidValueError(
            f"{config.algorithm} trains several agents, and {config.env_id} has a single one; "
            "'ppo' trains one."
        )
    raise InvalidValueError(
        f"{config.env_id} has {num_agents} agents, and {config.algorithm} trains a single one; "
        f"{', '.join(map(repr, AGENTS))} train several."
    )
