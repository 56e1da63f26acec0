"""Many compiled environments as pure functions: batching, starting over, episode statistics.

N stands for the number of environments in shapes, A for the agents of each where there are several.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from gymnasium.vector import AutoresetMode
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32

from kiloworlds.core.environment import Environment, MultiAgentEnvironment
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import FAST_IMPL


class VectorState(NamedTuple):
    """Everything that determines the future of a batch of environments.

    `parameters` holds the environment fields that differ between environments (else None);
    `clock` counts vector steps and, with `keys`, names every random draw.
    """

    keys: Key[Array, " N"]
    clock: UInt32[Array, ""]
    environments: PyTree
    parameters: PyTree
    finished: Bool[Array, " N"]
    episode_return: Float[Array, "N ..."]
    episode_length: Int[Array, " N"]


class Agents(NamedTuple):
    """What several agents may do and know in a batch of states.

    `available_actions` is None where all actions always are legal; `global_state`, what a centralised
    critic sees, is None where the observations of all agents stand for it.
    """

    alive: Bool[Array, "N A"]
    available_actions: PyTree | None
    global_state: Float[Array, "N ..."] | None


class AgentsStep(NamedTuple):
    """What a step of all environments means to several agents.

    `next` is what to act on next, `final` what the step itself led to: they differ where a new episode
    began. `terminated` tells for which agents nothing follows: the task ended, or the agent died in
    this step.
    """

    next: Agents
    final: Agents
    terminated: Bool[Array, "N A"]


class VectorStep(NamedTuple):
    """One step of all environments.

    `observation` is what to act on next: where an episode ended and the vector started a new one,
    the first of the new episode. `final_observation` and `final_info` are always what the step
    itself led to. `episode_return` and `episode_length` are meaningful where `finished`.
    `was_reset` marks the steps of next-step autoreset that only reset: their reward and flags are
    void and must not be learnt from. `agents` is None where there is but one.
    """

    observation: PyTree
    reward: Float[Array, "N ..."]
    terminated: Bool[Array, " N"]
    truncated: Bool[Array, " N"]
    info: dict[str, Any]
    final_observation: PyTree
    final_info: dict[str, Any]
    finished: Bool[Array, " N"]
    was_reset: Bool[Array, " N"]
    episode_return: Float[Array, "N ..."]
    episode_length: Int[Array, " N"]
    agents: AgentsStep | None = None


InitFunction = Callable[[Key[Array, ""]], tuple[VectorState, PyTree]]
StepFunction = Callable[[VectorState, PyTree], tuple[VectorState, VectorStep]]


def split_parameters(
    env: Environment, reference: Environment, num_envs: int
) -> tuple[PyTree, Environment]:
    """Separates the fields of `env` that differ between environments from those they share.

    A field is batched if it has exactly one axis more than in `reference`.

    Returns:
        The batched leaves (None elsewhere) and the shared rest (None where batched).

    Raises:
        InvalidValueError: a field whose leading axis is not `num_envs`.
    """
    # Static fields may differ (a map of another size), so leaves are paired by path.
    ranks = {
        jax.tree_util.keystr(path): jnp.ndim(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(reference)
    }

    def is_batched(path, leaf) -> bool:
        name = jax.tree_util.keystr(path)
        extra = jnp.ndim(leaf) - ranks.get(name, jnp.ndim(leaf))
        if extra == 0:
            return False
        if extra != 1 or jnp.shape(leaf)[0] != num_envs:
            raise InvalidValueError(
                f"the parameter {name.split('.')[-1]} has shape {jnp.shape(leaf)}; it must have "
                f"{ranks[name]} axes, or one more in front of length num_envs={num_envs}."
            )
        return True

    batched = jax.tree_util.tree_map_with_path(is_batched, env)
    parameters, shared = eqx.partition(env, batched)
    return jax.tree.map(jnp.asarray, parameters), shared


def select(mask: Bool[Array, " N"], where_true: PyTree, where_false: PyTree) -> PyTree:
    """Chooses leaf-wise between two batches by environment."""

    def choose(first: Array, second: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (first.ndim - 1)), first, second)

    return jax.tree.map(choose, where_true, where_false)


def step_keys(keys: Key[Array, " N"], clock: UInt32[Array, ""], use: int) -> Key[Array, " N"]:
    """Independent keys for `use` 0 (the step) and 1 (a reset in that step)."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, 2 * clock + use)


class VectorFunctions:
    """Pure `init` and `step` over `num_envs` copies of one environment.

    Args:
        env: the environment; fields with a leading axis (see `split_parameters`) differ per copy.
        reference: the same environment with no field batched.
        num_envs: how many copies.
        autoreset_mode: when finished environments start over.
    """

    def __init__(
        self,
        env: Environment,
        reference: Environment,
        num_envs: int,
        autoreset_mode: AutoresetMode,
    ):
        self.num_envs = num_envs
        self.autoreset_mode = autoreset_mode
        self.parameters, self._shared = split_parameters(env, reference, num_envs)
        self._cheap_reset = env.cheap_reset
        self._reset = jax.vmap(lambda p, key: self.with_parameters(p).reset(key))
        self._step = jax.vmap(
            lambda p, key, s, action: self.with_parameters(p).step(key, s, action)
        )
        self._is_observable = env.is_observable
        self._observe = jax.vmap(lambda p, s: self.with_parameters(p).observe(s))
        self._reset_info = jax.vmap(lambda p, s: self.with_parameters(p).reset_info(s))
        self.num_agents = env.num_agents if isinstance(env, MultiAgentEnvironment) else None
        """How many agents each environment has; None for environments of a single agent."""
        self._agents = jax.vmap(lambda p, s: _agents(self.with_parameters(p), s))

    def with_parameters(self, parameters: PyTree) -> Environment:
        """One environment whose batched fields are `parameters` (leaves without the N axis)."""
        return eqx.combine(parameters, self._shared)

    def init(self, key: Key[Array, ""]) -> tuple[VectorState, PyTree]:
        """Starts all environments; returns the state and the observations `[N, ...]`.

        Environment i draws from `fold_in(key, i)`, whatever N is and wherever it runs.
        """
        indices = jnp.arange(self.num_envs, dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
        return self.init_from_keys(keys, self.parameters)

    def init_from_seeds(
        self, seeds: UInt32[Array, " N"], parameters: PyTree
    ) -> tuple[VectorState, PyTree]:
        """Starts environment i from its own seed, with its own parameters."""
        keys = jax.vmap(lambda seed: jax.random.key(seed, impl=FAST_IMPL))(seeds)
        return self.init_from_keys(keys, parameters)

    def init_from_keys(
        self, keys: Key[Array, " N"], parameters: PyTree
    ) -> tuple[VectorState, PyTree]:
        clock = jnp.uint32(0)
        environments, observation = self._reset(parameters, step_keys(keys, clock, 1))
        none = jnp.zeros(keys.shape, bool)
        state = VectorState(
            keys,
            clock,
            environments,
            parameters,
            none,
            jnp.zeros((*keys.shape, *self._agent_axis)),
            jnp.zeros(keys.shape, jnp.int32),
        )
        return state._replace(clock=clock + 1), observation

    @property
    def _agent_axis(self) -> tuple[int, ...]:
        return () if self.num_agents is None else (self.num_agents,)

    def _zero_where(self, mask: Bool[Array, " N"], values: Float[Array, "N ..."]) -> Array:
        """`values`, 0 in the masked environments."""
        return jnp.where(mask if self.num_agents is None else mask[:, None], 0.0, values)

    def agents(self, state: VectorState) -> Agents:
        """What the agents may do and know in the current states; for several agents only."""
        return self._agents(state.parameters, state.environments)

    def reset_info(self, state: VectorState) -> dict[str, Any]:
        """Info of freshly reset environments, arrays `[N, ...]`."""
        return self._reset_info(state.parameters, state.environments)

    def reset_where(
        self, state: VectorState, mask: Bool[Array, " N"], observation: PyTree
    ) -> tuple[VectorState, PyTree]:
        """Starts the masked environments over; returns all observations."""
        state, observation = self.start_over(state, mask, observation)
        return state._replace(clock=state.clock + 1), observation

    def start_over(
        self, state: VectorState, mask: Bool[Array, " N"], observation: PyTree
    ) -> tuple[VectorState, PyTree]:
        """The same while the clock stands still, so that the other environments do not notice."""
        environments, observation = self._start_over(state, mask, state.environments, observation)
        return self._begun(state, mask, environments), observation

    def _begun(
        self, state: VectorState, mask: Bool[Array, " N"], environments: PyTree
    ) -> VectorState:
        """The state with new environments in the place of the masked."""
        return state._replace(
            environments=environments,
            finished=state.finished & ~mask,
            episode_return=self._zero_where(mask, state.episode_return),
            episode_length=jnp.where(mask, 0, state.episode_length),
        )

    def _start_over(
        self,
        state: VectorState,
        mask: Bool[Array, " N"],
        environments: PyTree,
        observation: PyTree,
    ) -> tuple[PyTree, PyTree]:
        if self._cheap_reset:
            fresh = self._reset(state.parameters, step_keys(state.keys, state.clock, 1))
            if not self._is_observable:
                return select(mask, fresh, (environments, observation))
            environments = select(mask, fresh[0], environments)
            return environments, self._observe(state.parameters, environments)
        return self._start_over_sparsely(state, mask, environments, observation)

    def _start_over_with_info(
        self,
        state: VectorState,
        mask: Bool[Array, " N"],
        environments: PyTree,
        observation: PyTree,
        info: dict[str, Any],
    ) -> tuple[PyTree, PyTree, dict[str, Any]]:
        environments, observation = self._start_over(state, mask, environments, observation)
        if info:
            fresh = self._reset_info(state.parameters, environments)
            # Where an environment has nothing to say of a start, zeros stand there.
            fresh = fresh or jax.tree.map(jnp.zeros_like, info)
            info = select(mask, fresh, info)
        return environments, observation, info

    def _start_over_sparsely(
        self,
        state: VectorState,
        mask: Bool[Array, " N"],
        environments: PyTree,
        observation: PyTree,
    ) -> tuple[PyTree, PyTree]:
        """Computes resets only for masked environments, a block at a time.

        Gathers up to a sixteenth of the batch per round, so that a costly reset is paid for the few
        environments that need it. Each draws from its own key: the result equals the dense way.
        """
        num_envs = mask.shape[0]
        block = max(1, num_envs // 16)

        def reset_block(carry):
            waiting, current = carry
            indices = jnp.nonzero(waiting, size=block, fill_value=num_envs)[0]
            keys = step_keys(state.keys[jnp.minimum(indices, num_envs - 1)], state.clock, 1)
            parameters = jax.tree.map(
                lambda leaf: leaf.at[indices].get(mode="clip"), state.parameters
            )
            fresh = self._reset(parameters, keys)
            current = jax.tree.map(
                lambda leaf, new: leaf.at[indices].set(new, mode="drop"), current, fresh
            )
            return waiting.at[indices].set(False, mode="drop"), current

        _, result = jax.lax.while_loop(
            lambda carry: carry[0].any(), reset_block, (mask, (environments, observation))
        )
        return result

    def step(self, state: VectorState, actions: PyTree) -> tuple[VectorState, VectorStep]:
        """Advances every environment by one action."""
        keys = step_keys(state.keys, state.clock, 0)
        environments, step = self._step(state.parameters, keys, state.environments, actions)
        stepped_to = environments
        returns = state.episode_return + step.reward
        lengths = state.episode_length + 1
        finished = step.terminated | step.truncated
        was_reset = jnp.zeros_like(finished)
        observation, info = step.observation, step.info
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            environments, observation, info = self._start_over_with_info(
                state, finished, environments, observation, info
            )
            next_returns = self._zero_where(finished, returns)
            next_lengths = jnp.where(finished, 0, lengths)
        elif self.autoreset_mode == AutoresetMode.NEXT_STEP:
            was_reset = state.finished
            environments, observation, info = self._start_over_with_info(
                state, was_reset, environments, observation, info
            )
            live = ~was_reset
            step = step._replace(
                reward=self._zero_where(was_reset, step.reward),
                terminated=step.terminated & live,
                truncated=step.truncated & live,
            )
            finished = finished & live
            returns, lengths = self._zero_where(was_reset, returns), jnp.where(live, lengths, 0)
            next_returns, next_lengths = returns, lengths
        else:
            next_returns, next_lengths = returns, lengths
        next_state = VectorState(
            state.keys,
            state.clock + 1,
            environments,
            state.parameters,
            finished,
            next_returns,
            next_lengths,
        )
        return next_state, VectorStep(
            observation,
            step.reward,
            step.terminated,
            step.truncated,
            info,
            step.observation,
            step.info,
            finished,
            was_reset,
            returns,
            lengths,
            None
            if self.num_agents is None
            else self._agents_step(state, stepped_to, next_state, step.terminated),
        )

    def _agents_step(
        self,
        before: VectorState,
        stepped_to: PyTree,
        after: VectorState,
        terminated: Bool[Array, " N"],
    ) -> AgentsStep:
        final = self._agents(before.parameters, stepped_to)
        died = self.agents(before).alive & ~final.alive
        return AgentsStep(self.agents(after), final, terminated[:, None] | died)


def _agents(env: Environment, state: PyTree) -> Agents:
    assert isinstance(env, MultiAgentEnvironment)
    sees_state = env.global_state_space is not None
    return Agents(
        env.alive(state),
        env.available_actions(state),
        env.global_state(state) if sees_state else None,
    )
