"""Compiled environments of several agents as PettingZoo environments.

Needs the package pettingzoo.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import concatenate, create_empty_array

from kiloworlds.core.checks import require_choice, require_flag
from kiloworlds.core.environment import Environment, MultiAgentEnvironment
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, did_you_mean
from kiloworlds.vector.compiled_agents import CompiledAgentsVectorEnv
from kiloworlds.vector.make import make
from kiloworlds.vector.pettingzoo.layout import AgentKind

try:
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise MissingDependencyError(
        "kiloworlds.to_pettingzoo needs a package that is missing: pip install pettingzoo"
    ) from error

_OURS = ("alive", "acting", "action_mask")  # infos of the vector, not of the environment
_FRAMES_PER_SECOND = 10

Results = tuple[
    dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
]


class CompiledParallelEnv(ParallelEnv):
    """One compiled environment of several agents as a `pettingzoo.ParallelEnv`; see `to_pettingzoo`.

    Args:
        vector: of one environment, with autoreset disabled.
        render_mode: what `render` gives: "rgb_array" or "ansi", whichever the environment has.
        masks_in: where action masks are: "infos" or "observations".
        name: in `metadata`.
    """

    def __init__(
        self,
        vector: CompiledAgentsVectorEnv,
        render_mode: str | None,
        masks_in: Literal["infos", "observations"],
        name: str,
    ):
        self._vector = vector
        self._masks_in = masks_in
        self._kinds = tuple(vector.kinds.values())
        self.possible_agents: list[str] = list(vector.possible_agents)
        self.agents: list[str] = []
        self.render_mode = render_mode
        self.metadata = {
            "name": name,
            "render_modes": _render_modes(vector.env.unwrapped),
            "render_fps": _FRAMES_PER_SECOND,
            "is_parallelizable": True,
        }
        if vector.global_state_space is not None:
            self.state_space = vector.global_state_space
        self._masked = masks_in == "observations" and vector.masks_actions
        # Copies: each space draws its own samples, and an agent's is the same object at each call.
        self.observation_spaces = {
            agent: self._observation_space_of(kind) for kind in self._kinds for agent in kind.agents
        }
        self.action_spaces = {
            agent: copy.deepcopy(kind.action_space) for kind in self._kinds for agent in kind.agents
        }
        self._idle = {kind.name: _any_action(kind) for kind in self._kinds}
        self._device = jax.local_devices(backend="cpu")[0]

    def _observation_space_of(self, kind: AgentKind) -> gymnasium.Space:
        space = copy.deepcopy(kind.observation_space)
        if not self._masked:
            return space
        mask = gymnasium.spaces.Box(0, 1, kind.mask_shape, np.int8)
        return gymnasium.spaces.Dict({"observation": space, "action_mask": mask})

    def __repr__(self) -> str:
        return f"CompiledParallelEnv({self.metadata['name']}, agents={self.possible_agents})"

    def observation_space(self, agent: str) -> gymnasium.Space:
        """The space of what an agent observes, always the same object."""
        self._check_agent(agent)
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space:
        """The space of an agent's actions, always the same object."""
        self._check_agent(agent)
        return self.action_spaces[agent]

    def _check_agent(self, agent: str) -> None:
        if agent not in self.action_spaces:
            raise InvalidValueError(
                f"{agent!r} is no agent of {self}.{did_you_mean(str(agent), self.possible_agents)} Its "
                f"agents are {self.possible_agents}."
            )

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Starts an episode; returns observations and infos by agent.

        Args:
            seed: gives the episodes of an environment seeded so in a vector. Without one the environment
                goes on drawing from where it is.
            options: not read; starting ranges are parameters of the environment.
        """
        with jax.default_device(self._device):
            observations, infos = self._vector.reset(seed=seed)
        present = infos["alive"][0].tolist()
        self.agents = [
            agent for agent, lives in zip(self.possible_agents, present, strict=True) if lives
        ]
        return self._observed(observations, infos, self.agents)

    def step(self, actions: dict[str, Any]) -> Results:
        """Takes one action of each agent that lives.

        Returns:
            Observations, rewards, terminations, truncations and infos of the agents that lived before.
            Those that ended are no longer in `agents`.

        Raises:
            InvalidValueError: an action is missing or outside its space, or the name of no agent.
            WrongCallError: before the first reset, or after the end of the episode.
        """
        joint = self._joint(actions)
        with jax.default_device(self._device):
            observations, rewards, terminated, truncated, infos = self._vector.step(joint)
        lived = self.agents
        place = {agent: index for index, agent in enumerate(self.possible_agents)}
        terminations = {agent: bool(terminated[0, place[agent]]) for agent in lived}
        truncations = {agent: bool(truncated[0, place[agent]]) for agent in lived}
        self.agents = [agent for agent in lived if not (terminations[agent] or truncations[agent])]
        given, told = self._observed(observations, infos, lived)
        received = {agent: float(rewards[0, place[agent]]) for agent in lived}
        return given, received, terminations, truncations, told

    def _joint(self, actions: dict[str, Any]) -> Any:
        """Actions of all agents, `[1, A, ...]` or in blocks; those that ended do anything."""
        if not isinstance(actions, Mapping):
            raise InvalidValueError(
                f"step() got actions of type {type(actions).__name__}; give a dictionary by agent."
            )
        for agent in actions:
            self._check_agent(agent)
        blocks = {}
        for kind in self._kinds:
            rows = [
                self._action_of(agent, actions) if agent in self.agents else self._idle[kind.name]
                for agent in kind.agents
            ]
            space = kind.action_space
            block = concatenate(space, rows, create_empty_array(space, n=len(rows)))
            blocks[kind.name] = jax.tree.map(lambda array: array[None], block)
        return blocks if len(blocks) > 1 else next(iter(blocks.values()))

    def _action_of(self, agent: str, actions: dict[str, Any]) -> Any:
        if agent not in actions:
            raise InvalidValueError(
                f"step() got no action of agent {agent!r}, which lives; it got those of "
                f"{list(actions)}."
            )
        action, space = actions[agent], self.action_spaces[agent]
        if isinstance(space, gymnasium.spaces.Discrete):
            fits = space.contains(np.asarray(action)[()])
        elif space.shape is None:  # of several parts, which the vector looks at
            fits = True
        else:  # what lies outside a box is clipped, by the vector
            fits = _are_numbers(action, space.shape)
        if not fits:
            raise InvalidValueError(
                f"the action of agent {agent!r} is {action!r}, outside {space}."
            )
        return action

    def _observed(
        self, observations: Any, infos: dict[str, Any], agents: list[str]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Observations and infos of some agents, each arrays of its own."""
        masks = infos.get("action_mask")
        facts = _facts({key: value for key, value in infos.items() if key not in _OURS})
        given, told = {}, {}
        for kind in self._kinds:
            single = len(self._kinds) == 1
            seen = observations if single else observations[kind.name]
            legal = masks if single or masks is None else masks[kind.name]
            for row, (agent, place) in enumerate(zip(kind.agents, kind.indices, strict=True)):
                if agent not in agents:
                    continue
                given[agent] = jax.tree.map(lambda leaf, row=row: leaf[0, row].copy(), seen)
                told[agent] = _facts_of(facts, place, len(self.possible_agents))
                if legal is None:
                    continue
                mask = legal[0, row].astype(np.int8)
                if self._masks_in == "infos":
                    told[agent]["action_mask"] = mask
                else:
                    given[agent] = {"observation": given[agent], "action_mask": mask}
        order = [agent for agent in self.possible_agents if agent in given]
        return {agent: given[agent] for agent in order}, {agent: told[agent] for agent in order}

    def state(self) -> np.ndarray:
        """What a centralised critic sees; `state_space` is its space.

        Raises:
            InvalidValueError: the environment has no global state.
        """
        return np.array(self._vector.global_state()[0])

    def render(self) -> np.ndarray | str | None:
        """A picture (uint8 RGB) or text, by the `render_mode`; None without one."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() without a render mode gives nothing; make the environment with "
                f"render_mode={self.metadata['render_modes'][0]!r}."
            )
            return None
        if self.render_mode == "ansi":
            return self._vector.describe(0)
        frames = self._vector.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        self._vector.close()


def _are_numbers(action: Any, shape: tuple[int, ...]) -> bool:
    """Whether an action is finite numbers of a shape."""
    try:
        numbers = np.asarray(action, np.float64)
    except (TypeError, ValueError):  # no numbers, or lists of unequal lengths
        return False
    return numbers.shape == shape and bool(np.isfinite(numbers).all())


def _render_modes(env: Environment) -> list[str]:
    ways = {"rgb_array": "render", "ansi": "describe"}
    return [
        mode
        for mode, way in ways.items()
        if getattr(type(env), way) is not getattr(Environment, way)
    ]


def _any_action(kind: AgentKind) -> Any:
    """An action for agents that have ended, which nobody reads."""
    space = copy.deepcopy(kind.action_space)
    space.seed(0)
    return space.sample()


def _facts(infos: dict[str, Any]) -> dict[str, Any]:
    """Infos of the one environment, without the masks beside them and what they exclude."""
    facts = {}
    for key, value in infos.items():
        if f"_{key}" in infos and infos[f"_{key}"][0]:
            facts[key] = _facts(value) if isinstance(value, dict) else value[0]
    return facts


def _facts_of(facts: dict[str, Any], place: int, num_agents: int) -> dict[str, Any]:
    """The infos of one agent: its entry where there is one for each agent, else the value for all."""
    own = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            own[key] = _facts_of(value, place, num_agents)
            continue
        entry = value[place] if np.ndim(value) and len(value) == num_agents else value
        own[key] = entry.item() if np.ndim(entry) == 0 else np.array(entry)
    return own


def to_pettingzoo(
    env: str | MultiAgentEnvironment,
    *,
    render_mode: Literal["rgb_array", "ansi"] | None = None,
    masks_in: Literal["infos", "observations"] = "infos",
    check_legal: bool = False,
    **env_kwargs: Any,
) -> CompiledParallelEnv:
    """Gives a compiled environment of several agents as a PettingZoo `ParallelEnv`.

    For learners and tools that speak PettingZoo; it steps one environment. Thousands at once are
    `kiloworlds.make`'s.

    An agent that ends has its flag set in that step and is then no longer in `agents`. A dead agent of a
    team gets no reward any more. Infos of the environment that hold one value per agent are dealt out;
    others every agent gets.

    Args:
        env: an id, or a compiled environment.
        render_mode: what `render` gives: pictures or text, whichever the environment has.
        masks_in: where action masks (int8) are, for environments that have them: in each agent's info as
            "action_mask", or in its observation, {"observation": ..., "action_mask": ...}.
        check_legal: whether actions outside the masks are errors. Otherwise the environment decides what
            they do, as with PettingZoo's own: its tests act at random.
        **env_kwargs: parameters of the environment.

    Raises:
        UnknownNameError: no environment of that id.
        InvalidValueError: an environment of one agent, or a value that is not allowed.
        MissingDependencyError: PettingZoo is not installed.

    Example:
        >>> import kiloworlds as kw
        >>> env = kw.to_pettingzoo("mpe/simple_spread_v3")
        >>> observations, infos = env.reset(seed=0)
        >>> observations["agent_0"].shape
        (18,)
        >>> observations, rewards, *_ = env.step({agent: 0 for agent in env.agents})
        >>> sorted(rewards)
        ['agent_0', 'agent_1', 'agent_2']
    """
    require_choice("masks_in", masks_in, ("infos", "observations"))
    require_flag("check_legal", check_legal)
    if not isinstance(env, str | MultiAgentEnvironment):
        raise InvalidValueError(
            f"to_pettingzoo() got {type(env).__name__}; give an id or a compiled environment of several "
            "agents."
        )
    vector = make(
        env,
        1,
        backend="compiled",
        autoreset_mode=AutoresetMode.DISABLED,
        episode_statistics=False,
        **env_kwargs,
    )
    if not isinstance(vector, CompiledAgentsVectorEnv):
        raise InvalidValueError(
            f"{env} has a single agent, which PettingZoo is not for; kiloworlds.make runs it as a "
            "Gymnasium vector."
        )
    if render_mode is not None:
        require_choice("render_mode", render_mode, _render_modes(vector.env.unwrapped))
    vector.check_legal = check_legal
    name = env if isinstance(env, str) else type(env.unwrapped).__name__
    return CompiledParallelEnv(vector, render_mode, masks_in, name.rpartition("/")[2])
