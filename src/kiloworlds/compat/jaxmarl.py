"""JaxMARL's interface over compiled environments: `make`, dictionaries by agent, keys and states.

For scripts written for the package jaxmarl, which is not needed: change the import and keep the rest.
New code is better off with `kiloworlds.make`, whose arrays have an agent axis.
"""

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree, UInt32

from kiloworlds.compat.jaxmarl_names import (
    NAMES,
    map_name_to_scenario,
    overcooked_layouts,
    translate,
)
from kiloworlds.core.environment import MultiAgentEnvironment, State
from kiloworlds.core.errors import InvalidValueError, did_you_mean
from kiloworlds.core.random import FAST_IMPL
from kiloworlds.core.registry import find_spec, make_environment
from kiloworlds.core.spaces import Discrete, Space
from kiloworlds.vector.functional import split_parameters

__all__ = [
    "JaxMARLEnv",
    "make",
    "map_name_to_scenario",
    "overcooked_layouts",
    "registered_envs",
]

registered_envs: list[str] = list(NAMES)
"""The names that jaxmarl registers. Those that are not offered here say so when they are made."""

ByAgent = dict[str, Any]
_RBG_SHAPE = (4,)  # of the key data of the generators "rbg" and "unsafe_rbg"


class JaxMARLEnv:
    """A compiled environment of several agents behind JaxMARL's interface.

    `reset` and `step` are pure, for use under `jax.jit`, `jax.vmap` and `jax.lax.scan`. As in JaxMARL
    `step` starts over by itself where the episode ended, and "dones" do not tell ends from truncations.
    Infos hold arrays `[A, ...]`, one entry for each agent, and "truncated" besides; "shaped_reward" is
    a dictionary by agent.

    States are those of the environment here. To bootstrap rightly from the last observation use
    `kiloworlds.make(...).functional()`, which gives it.

    Args:
        env: the environment, with its time limit if it has one.
        agents: names for its agents, in its order; its own if not given.
        order: those names in the order of `agents`, if that differs.
        name: of the environment.
        world_state: whether observations have an entry "world_state", the global state.
        team_reward: whether rewards have an entry "__all__", the team's.

    Attributes:
        agents: the names of all agents.
        num_agents: how many there are.
        observation_spaces, action_spaces: by agent.
        agent_classes: the names of the agents of each kind.
    """

    def __init__(
        self,
        env: MultiAgentEnvironment,
        *,
        agents: tuple[str, ...] | None = None,
        order: tuple[str, ...] | None = None,
        name: str | None = None,
        world_state: bool = False,
        team_reward: bool = False,
    ):
        names = env.possible_agents if agents is None else agents
        self.env = env
        self.name = name or type(env.unwrapped).__name__
        self.agents = list(names if order is None else order)
        self.num_agents = len(self.agents)
        self._place = {agent: index for index, agent in enumerate(names)}
        self._world_state, self._team_reward = world_state, team_reward
        self.observation_spaces: dict[str, Space] = {}
        self.action_spaces: dict[str, Space] = {}
        self.agent_classes: dict[str, list[str]] = {}
        self._row: dict[str, tuple[str, int]] = {}
        for agent, kind, row in _members(env, names):
            self.observation_spaces[agent] = kind.observation_space
            self.action_spaces[agent] = kind.action_space
            self.agent_classes.setdefault(kind.name, []).append(agent)
            self._row[agent] = (kind.name, row)
        self._single = len(env.kinds) == 1
        # Compiled here, as JaxMARL's are: many scripts call them outside of jax.jit.
        self._reset, self._step_env = jax.jit(self._reset_once), jax.jit(self._step_once)
        self._step = jax.jit(self._step_and_reset)

    def __repr__(self) -> str:
        return f"JaxMARLEnv({self.name}, agents={self.agents})"

    def observation_space(self, agent: str) -> Space:
        """The space of what an agent observes."""
        return self._of_agent(self.observation_spaces, agent)

    def action_space(self, agent: str) -> Space:
        """The space of an agent's actions."""
        return self._of_agent(self.action_spaces, agent)

    def _of_agent(self, by_agent: Mapping[str, Space], agent: str) -> Space:
        if agent not in by_agent:
            raise InvalidValueError(
                f"{agent!r} is no agent of {self.name}.{did_you_mean(str(agent), self.agents)} Its "
                f"agents are {self.agents}."
            )
        return by_agent[agent]

    def reset(self, key: Key[Array, ""] | UInt32[Array, "2"]) -> tuple[ByAgent, State]:
        """Starts an episode; returns observations by agent and the state.

        Args:
            key: a key of any kind, those of `jax.random.PRNGKey` included.
        """
        _check_key(key)
        return self._reset(key)

    def step(
        self,
        key: Key[Array, ""] | UInt32[Array, "2"],
        state: State,
        actions: ByAgent,
        reset_state: State | None = None,
    ) -> tuple[ByAgent, State, ByAgent, ByAgent, dict[str, Any]]:
        """Advances by one action of each agent, and starts over where the episode ended.

        Args:
            key, state: as returned and given before.
            actions: by agent; those of dead agents are not read.
            reset_state: what to start over from, in place of a drawn state.

        Returns:
            Observations, the state, rewards, dones (with "__all__") and infos. Where the episode ended,
            observations and state are those of the next.

        Raises:
            InvalidValueError: an action is missing, or `reset_state` is given for an environment whose
                observations are no function of the state.
        """
        actions = self._checked(key, state, actions)
        return self._step(key, state, actions, reset_state)

    def step_env(
        self, key: Key[Array, ""] | UInt32[Array, "2"], state: State, actions: ByAgent
    ) -> tuple[ByAgent, State, ByAgent, ByAgent, dict[str, Any]]:
        """The same without starting over."""
        actions = self._checked(key, state, actions)
        return self._step_env(key, state, actions)

    def get_obs(self, state: State) -> ByAgent:
        """Observations by agent of a state.

        Raises:
            InvalidValueError: the environment's observations are no function of its state.
        """
        if not self.env.is_observable:
            raise InvalidValueError(
                f"{self.name} has observations that are no function of its state; take those of reset() "
                "and step()."
            )
        return self._observations(self.env.observe(state), state)

    def get_avail_actions(self, state: State) -> ByAgent:
        """Which actions are legal, boolean `[n]` by agent; all where the environment has no masks.

        Raises:
            InvalidValueError: an agent's actions are not discrete.
        """
        masks = self.env.available_actions(state)
        if masks is not None:
            return self._by_agent(masks)
        for agent, space in self.action_spaces.items():
            if not isinstance(space, Discrete):
                raise InvalidValueError(
                    f"{self.name}: the actions of {agent!r} are {space}, of which none are masked."
                )
        return {agent: jnp.ones(self.action_spaces[agent].n, bool) for agent in self.agents}  # type: ignore[attr-defined]

    def get_legal_moves(self, state: State) -> ByAgent:
        """The same, by the name that JaxMARL's Hanabi has for it."""
        return self.get_avail_actions(state)

    def get_world_state(self, state: State) -> Array:
        """What a centralised critic sees, where the environment says so."""
        return self.env.global_state(state)

    def _reset_once(self, key: PyTree) -> tuple[ByAgent, State]:
        state, observation = self.env.reset(_fast(key, 1))
        return self._observations(observation, state), state

    def _step_once(self, key: PyTree, state: State, actions: ByAgent) -> tuple:
        return self._told(state, *self._advance(key, state, actions))

    def _step_and_reset(
        self, key: PyTree, state: State, actions: ByAgent, reset_state: State | None
    ) -> tuple:
        after, step = self._advance(key, state, actions)
        _, _, rewards, dones, infos = self._told(state, after, step)
        over = dones["__all__"]
        if reset_state is None:
            first, observation = self.env.reset(_fast(key, 2))
        else:
            first, observation = reset_state, None
        following = _either(over, first, after)
        if self.env.is_observable or observation is None:
            seen = self.get_obs(following)  # choosing between states costs less, see `observe`
        else:
            seen = self._observations(_either(over, observation, step.observation), following)
        return seen, following, rewards, dones, infos

    def _advance(self, key: PyTree, state: State, actions: ByAgent) -> tuple:
        return self.env.step(_fast(key, 0), state, self._joint(actions))

    def _told(self, before: State, after: State, step: Any) -> tuple:
        """What JaxMARL tells of a step."""
        over = step.terminated | step.truncated
        out = ~self.env.alive(after) | over
        dones: dict[str, Bool[Array, ""]] = {
            agent: out[self._place[agent]] for agent in self.agents
        }
        dones["__all__"] = over
        rewards = {agent: step.reward[self._place[agent]] for agent in self.agents}
        if self._team_reward:
            rewards["__all__"] = step.reward[0]
        infos = {key: self._info(key, value) for key, value in step.info.items()}
        infos.setdefault("truncated", jnp.broadcast_to(step.truncated, (self.num_agents,)))
        return self._observations(step.observation, after), after, rewards, dones, infos

    def _info(self, key: str, value: PyTree) -> PyTree:
        if key == "shaped_reward":
            return {agent: value[self._place[agent]] for agent in self.agents}
        places = jnp.asarray([self._place[agent] for agent in self.agents])

        def of_agents(leaf: Array) -> Array:
            if leaf.ndim and leaf.shape[0] == self.num_agents:
                return leaf[places]
            return jnp.broadcast_to(leaf, (self.num_agents, *leaf.shape))

        return jax.tree.map(of_agents, value)

    def _observations(self, observation: PyTree, state: State) -> ByAgent:
        seen = self._by_agent(observation)
        if self._world_state:
            seen["world_state"] = self.env.global_state(state)
        return seen

    def _by_agent(self, blocks: PyTree) -> ByAgent:
        """Values by agent out of one block `[A, ...]`, or one for each kind."""
        by_agent = {}
        for agent in self.agents:
            kind, row = self._row[agent]
            block = blocks if self._single else blocks[kind]
            by_agent[agent] = jax.tree.map(lambda leaf, row=row: leaf[row], block)
        return by_agent

    def _joint(self, actions: ByAgent) -> PyTree:
        """Actions of all agents in one block `[A, ...]`, or one for each kind."""
        blocks = {
            kind: jax.tree.map(
                lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]),
                *(actions[agent] for agent in members),
            )
            for kind, members in self.agent_classes.items()
        }
        return next(iter(blocks.values())) if self._single else blocks

    def _checked(self, key: PyTree, state: State, actions: ByAgent) -> ByAgent:
        """The actions, after a look at all that a step is given.

        Raises:
            InvalidValueError: something does not fit.
        """
        _check_key(key)
        if state is None:
            raise InvalidValueError(
                "step() got the state None; give what reset() or step() returned."
            )
        if not isinstance(actions, Mapping):
            raise InvalidValueError(
                f"step() got actions of type {type(actions).__name__}; give a dictionary by agent."
            )
        for agent in self.agents:
            if agent not in actions:
                raise InvalidValueError(
                    f"step() got no action of agent {agent!r}; it got those of {list(actions)}. Every "
                    "agent needs one, dead ones too, of whom it is not read."
                )
        for agent in actions:
            self.action_space(agent)  # raises for who is none
        return {agent: self._checked_action(agent, actions[agent]) for agent in self.agents}

    def _checked_action(self, agent: str, action: Any) -> Any:
        space: Any = self.action_spaces[agent]
        wanted = getattr(space, "shape", None)
        if wanted is None:  # of several parts
            return action
        shape = np.shape(action) if isinstance(action, jax.Array) else _shape_of_numbers(action)
        if shape is None:
            raise InvalidValueError(
                f"the action of agent {agent!r} is {action!r}; it must be numbers of shape {wanted}."
            )
        if shape != wanted:
            raise InvalidValueError(
                f"the action of agent {agent!r} has shape {shape}; it must be {wanted}, of one "
                "environment: jax.vmap steps many."
            )
        if isinstance(action, jax.Array):  # looking at its value would wait for the device
            return action
        value = np.asarray(action)
        discrete = isinstance(space, Discrete)
        if discrete and not (
            value.dtype.kind in "iu" and space.start <= value < space.start + space.n
        ):
            raise InvalidValueError(
                f"the action of agent {agent!r} is {action!r}, outside {space}."
            )
        if not np.isfinite(value).all():
            raise InvalidValueError(
                f"the action of agent {agent!r} is {action!r}; it must be finite."
            )
        return value.astype(np.int32) if discrete else value


def _shape_of_numbers(action: Any) -> tuple[int, ...] | None:
    """The shape of numbers of Python or NumPy; None for anything else."""
    try:
        value = np.asarray(action)
    except ValueError:  # lists of unequal lengths
        return None
    return value.shape if value.dtype.kind in "biuf" else None


def _members(env: MultiAgentEnvironment, names: tuple[str, ...]) -> Iterator[tuple[str, Any, int]]:
    """Each agent's name, its kind and its row in the block of that kind."""
    given = iter(names)
    for kind in env.kinds:
        for row in range(len(kind.agents)):
            yield next(given), kind, row


def _fast(key: PyTree, use: int) -> Key[Array, ""]:
    """A fast key for one `use` of a key of any kind: 0 a step, 1 a reset, 2 the reset in a step."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = jax.random.key_data(key) if typed else jnp.asarray(key)
    if words.shape == _RBG_SHAPE:
        words = jax.random.bits(jax.random.wrap_key_data(words, impl="rbg"), (2,), jnp.uint32)
    return jax.random.fold_in(jax.random.wrap_key_data(words, impl=FAST_IMPL), use)


def _check_key(key: Any) -> None:
    """Raises InvalidValueError for what is not one key, of any kind."""
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (shape == () if typed else dtype == jnp.uint32 and shape in ((2,), _RBG_SHAPE)):
        raise InvalidValueError(
            f"{reprlib.repr(key)} is not one key; give jax.random.key(seed) or "
            "jax.random.PRNGKey(seed), and many of them to jax.vmap of the method."
        )


def _either(mask: Bool[Array, ""], where_true: PyTree, where_false: PyTree) -> PyTree:
    """Chooses leaf-wise between two states or observations."""
    return jax.tree.map(lambda one, other: jnp.where(mask, one, other), where_true, where_false)


def _check_single(id: str, env: MultiAgentEnvironment, parameters: dict[str, Any]) -> None:
    """Raises InvalidValueError for parameters that differ between environments."""
    spec = find_spec(id)
    assert spec is not None  # it was made by it
    batched, _ = split_parameters(env, spec.build_reference(**parameters), 1)
    if jax.tree.leaves(batched):
        raise InvalidValueError(
            "parameters that differ between environments are for kiloworlds.make, which makes many; "
            "jaxmarl's make makes one."
        )


def make(env_id: str, **env_kwargs: Any) -> JaxMARLEnv:
    """`jaxmarl.make` on compiled environments.

    Args:
        env_id: a name that jaxmarl registers, see `registered_envs`; or an id of kiloworlds.
        **env_kwargs: jaxmarl's parameters of that environment, or ours.

    Returns:
        The environment, with its time limit and jaxmarl's names of agents.

    Raises:
        UnknownNameError: no such name; near ones are suggested.
        InvalidValueError: an environment that is not offered here, or a parameter it does not take.

    Example:
        >>> import jax
        >>> from kiloworlds.compat import jaxmarl
        >>> env = jaxmarl.make("MPE_simple_spread_v3")
        >>> observations, state = env.reset(jax.random.PRNGKey(0))
        >>> actions = dict.fromkeys(env.agents, 1)
        >>> stepped = env.step(jax.random.PRNGKey(1), state, actions)
        >>> observations, state, rewards, dones, infos = stepped
        >>> sorted(dones)
        ['__all__', 'agent_0', 'agent_1', 'agent_2']
    """
    wanted = translate(env_id, env_kwargs)
    env = make_environment(wanted.id, **wanted.parameters)
    if not isinstance(env, MultiAgentEnvironment):
        raise InvalidValueError(f"{env_id} has a single agent; kiloworlds.make runs it.")
    _check_single(wanted.id, env, wanted.parameters)
    return JaxMARLEnv(
        env,
        agents=tuple(map(wanted.agents, env.possible_agents)),
        order=wanted.order,
        name=env_id,
        world_state=wanted.has_world_state,
        team_reward=wanted.has_team_reward,
    )
