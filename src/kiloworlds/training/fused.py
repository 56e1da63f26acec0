"""The fused loop: environments, policy and learning in one compiled program.

Letters in shapes: S seeds, T steps per rollout, N environments, U updates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree

from kiloworlds.algorithms.ppo import PPO, PPOState, Rollout
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.placement import choose_devices
from kiloworlds.vector.functional import VectorFunctions, VectorState
from kiloworlds.vector.make import AutoresetMode

CHUNK = 256
"""At most so many updates run per call of the compiled program."""

_SEEDS = "seeds"
_ENVIRONMENTS = "environments"


class LoopState(NamedTuple):
    """Everything that determines the future of one training."""

    learner: PPOState
    environments: VectorState
    observation: PyTree
    return_so_far: Float[Array, " N"]
    key: Key[Array, ""]
    updates: Int[Array, ""]


class Episodes(NamedTuple):
    """Sums over the episodes that ended in one update."""

    ended: Any
    return_sum: Any
    length_sum: Any


class UpdateMetrics(NamedTuple):
    """What one update reports."""

    episodes: Episodes
    train: dict[str, Float[Array, "..."]]


class FusedTraining:
    """Trains on a compiled environment, all seeds in one program.

    Seeds are independent: each has its own network, environments and keys, and its result does not
    depend on which others run. Several devices share the seeds; a single seed's environments are
    spread over them instead, and gradients averaged.

    Args:
        config: the settings.
        env: the compiled environment.
        reference: the same with no batched field (see `CompiledVectorEnv`).
    """

    def __init__(self, config: TrainConfig, env: Environment, reference: Environment | None = None):
        self.config = config
        self._mesh, self._shard_axis = self._choose_mesh(config)
        shares = self._mesh.size if self._mesh and self._shard_axis == _ENVIRONMENTS else 1
        axis_name = _ENVIRONMENTS if shares > 1 else None
        self._num_envs = config.num_envs // shares
        self.algorithm = PPO(
            config.settings, env.observation_space, env.action_space, axis_name=axis_name
        )
        self._vector = VectorFunctions(
            env, reference or env, self._num_envs, AutoresetMode.SAME_STEP
        )
        self._axis_name = axis_name
        self._init = jax.jit(self._spread(jax.vmap(self._init_one), ()))
        self._run = jax.jit(
            self._spread(jax.vmap(self._run_one, in_axes=(0, None)), (PartitionSpec(),)),
            donate_argnums=0,
        )

    def _choose_mesh(self, config: TrainConfig) -> tuple[Mesh | None, str | None]:
        count = choose_devices(config)
        if count == 1:
            return None, None
        axis = _SEEDS if config.num_seeds % count == 0 else _ENVIRONMENTS
        return Mesh(np.asarray(jax.devices()[:count]), (axis,), axis_types=(AxisType.Auto,)), axis

    def _spread(self, function, extra_specs: tuple):
        """Splits the leading (seed) axis, or the environment axis of a loop state, over devices."""
        if self._mesh is None:
            return function
        if self._shard_axis == _SEEDS:
            spec = PartitionSpec(_SEEDS)
            return jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(spec, *extra_specs),
                out_specs=spec,
                check_vma=False,
            )
        everywhere, split = PartitionSpec(), PartitionSpec(None, _ENVIRONMENTS)
        loop_state = LoopState(
            learner=everywhere,  # type: ignore[arg-type]
            environments=VectorState(
                keys=split,  # type: ignore[arg-type]
                clock=everywhere,  # type: ignore[arg-type]
                environments=split,
                parameters=split,
                finished=split,  # type: ignore[arg-type]
                episode_return=split,  # type: ignore[arg-type]
                episode_length=split,  # type: ignore[arg-type]
            ),
            observation=split,
            return_so_far=split,  # type: ignore[arg-type]
            key=everywhere,  # type: ignore[arg-type]
            updates=everywhere,  # type: ignore[arg-type]
        )
        first = loop_state if extra_specs else everywhere
        out = (loop_state, everywhere) if extra_specs else loop_state
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(first, *extra_specs),
            out_specs=out,
            check_vma=False,
        )

    def _init_one(self, key: Key[Array, ""]) -> LoopState:
        learner_key, environment_key, loop_key = jax.random.split(key, 3)
        first = 0
        if self._axis_name is not None:
            first = jax.lax.axis_index(self._axis_name).astype(jnp.uint32) * self._num_envs
        indices = first + jnp.arange(self._num_envs, dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(environment_key, indices)
        environments, observation = self._vector.init_from_keys(keys, self._vector.parameters)
        return LoopState(
            self.algorithm.init(learner_key),
            environments,
            observation,
            jnp.zeros(self._num_envs),
            loop_key,
            jnp.int32(0),
        )

    def _rollout(
        self, state: LoopState, key: Key[Array, ""]
    ) -> tuple[VectorState, PyTree, Rollout, Episodes]:
        policy = self.algorithm.policy(state.learner)
        to_environment = self.algorithm.head.to_environment

        def act_and_step(carry, step_key):
            environments, observation = carry
            raw, log_prob = self.algorithm.act(policy, step_key, observation)
            environments, step = self._vector.step(environments, to_environment(raw))
            transition = Rollout(
                observation,
                raw,
                log_prob,
                step.reward,
                step.terminated,
                step.finished,
                step.final_observation,
            )
            finished = step.finished.astype(jnp.float32)
            episodes = Episodes(
                finished.sum(),
                (finished * step.episode_return).sum(),
                (finished * step.episode_length).sum(),
            )
            return (environments, step.observation), (transition, episodes)

        keys = jax.random.split(key, self.config.settings.num_steps)
        (environments, observation), (rollout, episodes) = jax.lax.scan(
            act_and_step, (state.environments, state.observation), keys
        )
        return environments, observation, rollout, jax.tree.map(jnp.sum, episodes)

    def _update(self, state: LoopState) -> tuple[LoopState, UpdateMetrics]:
        config = self.config
        update_key = jax.random.fold_in(state.key, state.updates)
        act_key, learn_key = jax.random.split(update_key)
        if self._axis_name is not None:
            index = jax.lax.axis_index(self._axis_name)
            act_key = jax.random.fold_in(act_key, index)
        environments, observation, rollout, episodes = self._rollout(state, act_key)
        learning_rate = jnp.float32(config.settings.learning_rate)
        if config.settings.anneal_learning_rate:
            learning_rate = learning_rate * (1.0 - state.updates / config.num_updates)
        learner, return_so_far, metrics = self.algorithm.update(
            state.learner, rollout, state.return_so_far, learn_key, learning_rate
        )
        metrics["learning_rate"] = learning_rate
        if self._axis_name is not None:
            episodes = jax.lax.psum(episodes, self._axis_name)
            metrics = jax.lax.pmean(metrics, self._axis_name)
        state = LoopState(
            learner, environments, observation, return_so_far, state.key, state.updates + 1
        )
        return state, UpdateMetrics(episodes, metrics)

    def _run_one(self, state: LoopState, count: Int[Array, ""]) -> tuple[LoopState, UpdateMetrics]:
        """`count` updates (at most CHUNK); metrics `[CHUNK]`, of which `count` are filled.

        The count is a traced value, so one compiled program serves every length.
        """
        shape = jax.eval_shape(lambda s: self._update(s)[1], state)
        metrics = jax.tree.map(lambda leaf: jnp.zeros((CHUNK, *leaf.shape), leaf.dtype), shape)

        def one_update(index, carry):
            state, metrics = carry
            state, new = self._update(state)
            metrics = jax.tree.map(lambda all_, one: all_.at[index].set(one), metrics, new)
            return state, metrics

        return jax.lax.fori_loop(0, count, one_update, (state, metrics))

    def seed_keys(self) -> Key[Array, " S"]:
        """One key per seed."""
        seeds = jnp.arange(self.config.num_seeds, dtype=jnp.uint32) + np.uint32(self.config.seed)
        return jax.vmap(fast_key)(seeds)

    def init(self) -> LoopState:
        """The state before the first update; every leaf has a leading seed axis."""
        return self._init(self.seed_keys())

    def run(self, state: LoopState, count: int) -> tuple[LoopState, UpdateMetrics]:
        """Runs `count` updates. `state` is consumed.

        Returns:
            The new state and the metrics as numpy arrays `[S, count]`.
        """
        if not 1 <= count <= CHUNK:
            raise InvalidValueError(f"count={count} must be between 1 and {CHUNK}.")
        state, metrics = self._run(state, jnp.int32(count))
        return state, jax.tree.map(lambda leaf: np.asarray(leaf)[:, :count], metrics)

    def learner(self, state: LoopState) -> PPOState:
        """The learner's part of a loop state, `[S, ...]`."""
        return state.learner
