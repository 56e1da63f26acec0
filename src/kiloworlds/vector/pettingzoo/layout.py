"""Where each agent of a PettingZoo environment lies on the agent axis, and in which block.

Letters used in shapes: N environments, A agents, K agents of one kind.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from kiloworlds.core.errors import InvalidValueError, did_you_mean

_MASK, _OBSERVATION = "action_mask", "observation"


@dataclass(frozen=True)
class AgentKind:
    """Agents that share their spaces and lie in one block `[N, K, ...]`.

    Attributes:
        name: such as "adversary".
        agents: their names, in the order of the block.
        indices: their places on the axis of all agents.
        observation_space: of one agent, without its action mask.
        action_space: of one agent.
        mask_shape: shape of one action mask; None where actions cannot be masked.
        masks_in_observation: whether observations are dictionaries that hold the mask.
    """

    name: str
    agents: tuple[Any, ...]
    indices: tuple[int, ...]
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    mask_shape: tuple[int, ...] | None
    masks_in_observation: bool

    def split(self, value: Any) -> tuple[Any, Any]:
        """An observation as the environment gives it, as observation and action mask (or None)."""
        if not (self.masks_in_observation and isinstance(value, dict) and _MASK in value):
            return value, None
        rest = {key: part for key, part in value.items() if key != _MASK}
        return rest[_OBSERVATION] if list(rest) == [_OBSERVATION] else rest, value[_MASK]


@dataclass(frozen=True)
class AgentLayout:
    """The agent axis of an environment.

    Attributes:
        agents: all that may appear, in the order of `possible_agents`.
        kinds: by name; one block of arrays each.
        in_blocks: whether observations and actions are dictionaries of blocks, keyed by kind;
            otherwise they are the only block itself.
        turn_based: whether one agent acts at a time (AEC), rather than all at once.
    """

    agents: tuple[Any, ...]
    kinds: dict[str, AgentKind]
    in_blocks: bool
    turn_based: bool

    @property
    def action_space(self) -> gymnasium.Space:
        """The space of the actions of all agents."""
        return self.arrange(
            {name: block_space(kind, "action") for name, kind in self.kinds.items()}
        )

    @property
    def observation_space(self) -> gymnasium.Space:
        """The space of the observations of all agents."""
        return self.arrange(
            {name: block_space(kind, "observation") for name, kind in self.kinds.items()}
        )

    def arrange(self, blocks: dict[str, Any]) -> Any:
        """Blocks by kind as users see them: one alone stands for itself."""
        if not self.in_blocks:
            (block,) = blocks.values()
            return block
        is_space = all(isinstance(block, gymnasium.Space) for block in blocks.values())
        return spaces.Dict(blocks) if is_space else blocks

    def blocks(self, arranged: Any) -> dict[str, Any]:
        """The blocks by kind, back from what users see."""
        return arranged if self.in_blocks else {next(iter(self.kinds)): arranged}


def block_space(kind: AgentKind, which: str) -> gymnasium.Space:
    """The space of the "observation" or "action" of all agents of a kind, `[K, ...]`."""
    return batch_space(getattr(kind, f"{which}_space"), len(kind.agents))


def read_layout(
    env: Any, turn_based: bool, kinds: Mapping[str, Sequence[Any]] | None
) -> AgentLayout:
    """Sorts the agents of an environment into kinds.

    Args:
        env: a PettingZoo environment.
        turn_based: whether it is an AEC environment.
        kinds: the names of agents by kind. If None, agents whose spaces are all alike are one kind;
            otherwise the name without its number says the kind: "adversary_0" is an "adversary".

    Raises:
        InvalidValueError: no `possible_agents`, a space that is another object at each call, agents of
            one kind with differing spaces, or `kinds` that do not name every agent once.
    """
    agents: tuple[Any, ...] = tuple(getattr(env, "possible_agents", None) or [])
    if not agents:
        raise InvalidValueError(
            f"{env} has no possible_agents; name all agents that may appear there, in the order of "
            "the agent axis."
        )
    observed = {agent: _fixed_space(env, "observation_space", agent) for agent in agents}
    acted = {agent: _fixed_space(env, "action_space", agent) for agent in agents}
    if kinds is None:
        groups = _group(agents, observed, acted)
    else:
        groups = {str(name): tuple(members) for name, members in kinds.items()}
        _check_kinds(groups, agents)
    return AgentLayout(
        agents,
        {name: _kind(name, members, agents, observed, acted) for name, members in groups.items()},
        in_blocks=kinds is not None or len(groups) > 1,
        turn_based=turn_based,
    )


def _fixed_space(env: Any, which: str, agent: Any) -> gymnasium.Space:
    space = getattr(env, which)(agent)
    if not isinstance(space, gymnasium.Space):
        raise InvalidValueError(
            f"{which}({agent!r}) is {type(space).__name__}; it must be a gymnasium.Space."
        )
    if getattr(env, which)(agent) is not space:
        raise InvalidValueError(
            f"{which}({agent!r}) is another object at each call; PettingZoo asks for the same one. "
            "Build it once, or put functools.lru_cache(maxsize=None) above the method."
        )
    return space


def _group(agents: tuple[Any, ...], *spaces_by_agent: dict[Any, Any]) -> dict[str, tuple[Any, ...]]:
    groups: dict[str, list[Any]] = {}
    for agent in agents:
        groups.setdefault(_stem(agent), []).append(agent)
    alike = all(by[agent] == by[agents[0]] for by in spaces_by_agent for agent in agents)
    if alike:
        return {next(iter(groups)) if len(groups) == 1 else "agent": agents}
    return {name: tuple(members) for name, members in groups.items()}


def _stem(agent: Any) -> str:
    return re.sub(r"[_-]?\d+$", "", str(agent)) or "agent"


def _check_kinds(groups: dict[str, tuple[Any, ...]], agents: tuple[Any, ...]) -> None:
    named = [agent for members in groups.values() for agent in members]
    for agent in named:
        if agent not in agents:
            raise InvalidValueError(
                f"kinds names {agent!r}, which is no agent of this environment."
                f"{did_you_mean(str(agent), map(str, agents))} Its agents are {list(agents)}."
            )
    wrong = [agent for agent in agents if named.count(agent) != 1]
    if wrong:
        raise InvalidValueError(
            f"kinds names {wrong[0]!r} {named.count(wrong[0])} times; each agent belongs to one kind."
        )


def _kind(
    name: str,
    members: tuple[Any, ...],
    agents: tuple[Any, ...],
    observed: dict[Any, gymnasium.Space],
    acted: dict[Any, gymnasium.Space],
) -> AgentKind:
    first = members[0]
    for what, by_agent in (("observation", observed), ("action", acted)):
        for agent in members:
            if by_agent[agent] != by_agent[first]:
                raise InvalidValueError(
                    f"agents {first!r} and {agent!r} are both of the kind {name!r}, but their {what} "
                    f"spaces differ: {by_agent[first]} and {by_agent[agent]}. Pad them (SuperSuit's "
                    f"pad_{what}s_v0 does), or sort the agents: kinds={{'name': [agents], ...}}."
                )
    given, action_space = observed[first], acted[first]
    mask = given.spaces.get(_MASK) if isinstance(given, spaces.Dict) else None
    if mask is not None:
        mask_shape = tuple(mask.shape or ())
    else:
        discrete = isinstance(action_space, spaces.Discrete)
        mask_shape = (int(action_space.n),) if discrete else None
    return AgentKind(
        name,
        members,
        tuple(agents.index(agent) for agent in members),
        _without_mask(given) if mask is not None else given,
        action_space,
        mask_shape,
        masks_in_observation=mask is not None,
    )


def _without_mask(space: gymnasium.Space) -> gymnasium.Space:
    assert isinstance(space, spaces.Dict)
    rest = {key: part for key, part in space.spaces.items() if key != _MASK}
    return rest[_OBSERVATION] if list(rest) == [_OBSERVATION] else spaces.Dict(rest)
