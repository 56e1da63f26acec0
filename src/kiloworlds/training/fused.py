"""The fused loop: environments, policy and learning in one compiled program.

Letters in shapes: S seeds, T steps per rollout, N environments, U updates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, PyTree

from kiloworlds.algorithms.ppo import PPO, PPOState, Rollout
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.placement import Axis, choose_placement
from kiloworlds.vector.functional import VectorFunctions, VectorState

CHUNK = 256
"""At most so many updates run per call of the compiled program."""


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


def _split_environments() -> LoopState:
    """How a loop state lies on devices that each have a share of the environments (second axis)."""
    everywhere: Any = PartitionSpec()
    split: Any = PartitionSpec(None, Axis.ENVIRONMENTS)
    return LoopState(
        learner=everywhere,
        environments=VectorState(
            keys=split,
            clock=everywhere,
            environments=split,
            parameters=split,
            finished=split,
            episode_return=split,
            episode_length=split,
        ),
        observation=split,
        return_so_far=split,
        key=everywhere,
        updates=everywhere,
    )


class FusedTraining:
    """Trains on a compiled environment, all seeds in one program.

    Seeds are independent: each has its own network, environments and keys, and computes what it would
    compute alone, up to rounding. `kiloworlds.training.placement` says what several devices share.

    Args:
        config: the settings.
        env: the compiled environment.
        reference: the same with no batched field (see `CompiledVectorEnv`).
    """

    def __init__(self, config: TrainConfig, env: Environment, reference: Environment | None = None):
        self.config = config
        placement = choose_placement(config)
        self._axis = placement.axis
        self._mesh = None
        if self._axis is not None:
            devices = np.asarray(jax.devices()[: placement.devices])
            self._mesh = Mesh(devices, (self._axis,), axis_types=(AxisType.Auto,))
        shards = placement.devices if self._axis == Axis.ENVIRONMENTS else 1
        self._num_envs = config.num_envs // shards
        self.algorithm = PPO(
            config.settings,
            env.observation_space,
            env.action_space,
            environment_axis=Axis.ENVIRONMENTS if self._axis == Axis.ENVIRONMENTS else None,
            network_axis=Axis.NETWORKS if self._axis == Axis.NETWORKS else None,
        )
        self._vector = VectorFunctions(
            env, reference or env, self._num_envs, AutoresetMode.SAME_STEP
        )
        self._init = jax.jit(self._spread(jax.vmap(self._init_one), takes_state=False))
        self._run = jax.jit(
            self._spread(jax.vmap(self._run_one, in_axes=(0, None)), takes_state=True),
            donate_argnums=0,
        )

    def _spread(self, function: Callable, takes_state: bool) -> Callable:
        """Runs a function on all devices: of keys, or of a loop state and a count (`takes_state`)."""
        if self._mesh is None:
            return function
        everywhere = PartitionSpec()
        match self._axis:
            case Axis.SEEDS:
                keys = state = metrics = PartitionSpec(Axis.SEEDS)
            case Axis.NETWORKS:
                keys = state = metrics = everywhere
            case _:
                keys = metrics = everywhere
                state = _split_environments()
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(state, everywhere) if takes_state else (keys,),
            out_specs=(state, metrics) if takes_state else state,
            check_vma=False,
        )

    def _init_one(self, key: Key[Array, ""]) -> LoopState:
        learner_key, environment_key, loop_key = jax.random.split(key, 3)
        first = 0
        if self._axis == Axis.ENVIRONMENTS:
            first = jax.lax.axis_index(Axis.ENVIRONMENTS).astype(jnp.uint32) * self._num_envs
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
            raw, outputs = self.algorithm.act(policy, step_key, observation)
            environments, step = self._vector.step(environments, to_environment(raw))
            # Left out: what is the next row's `observation`.
            return (environments, step.observation), (
                observation,
                raw,
                outputs,
                step._replace(observation=None),
            )

        keys = jax.random.split(key, self.config.settings.num_steps)
        (environments, observation), (observations, raw, outputs, steps) = jax.lax.scan(
            act_and_step, (state.environments, state.observation), keys
        )
        rollout = Rollout(
            observations,
            raw,
            self.algorithm.log_prob(policy, outputs, raw),
            steps.reward,
            steps.terminated,
            steps.finished,
            steps.final_observation,
        )
        finished = steps.finished.astype(jnp.float32)
        episodes = Episodes(
            finished.sum(),
            (finished * steps.episode_return).sum(),
            (finished * steps.episode_length).sum(),
        )
        return environments, observation, rollout, episodes

    def _update(self, state: LoopState) -> tuple[LoopState, UpdateMetrics]:
        config = self.config
        update_key = jax.random.fold_in(state.key, state.updates)
        act_key, learn_key = jax.random.split(update_key)
        if self._axis == Axis.ENVIRONMENTS:
            index = jax.lax.axis_index(Axis.ENVIRONMENTS)
            act_key = jax.random.fold_in(act_key, index)
        environments, observation, rollout, episodes = self._rollout(state, act_key)
        learning_rate = jnp.float32(config.settings.learning_rate)
        if config.settings.anneal_learning_rate:
            learning_rate = learning_rate * (1.0 - state.updates / config.num_updates)
        learner, return_so_far, metrics = self.algorithm.update(
            state.learner, rollout, state.return_so_far, learn_key, learning_rate
        )
        metrics["learning_rate"] = learning_rate
        if self._axis == Axis.ENVIRONMENTS:
            episodes = jax.lax.psum(episodes, Axis.ENVIRONMENTS)
            metrics = jax.lax.pmean(metrics, Axis.ENVIRONMENTS)
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

    def run(
        self, state: LoopState, count: int, stop: Callable[[], bool] = lambda: False
    ) -> tuple[LoopState, UpdateMetrics]:
        """Runs `count` updates. `state` is consumed. One program does all: `stop` is not asked.

        Returns:
            The new state and the metrics as numpy arrays `[S, count]`.
        """
        if not 1 <= count <= CHUNK:
            raise InvalidValueError(f"count={count} must be between 1 and {CHUNK}.")
        state, metrics = self._run(state, jnp.int32(count))
        return state, jax.tree.map(lambda leaf: np.asarray(leaf)[:, :count], metrics)

    backend = "compiled"

    def host_metrics(self) -> dict[str, float]:
        """None: everything happens in one program."""
        return {}

    def close(self) -> None:
        """Nothing to give back."""

    def learner(self, state: LoopState) -> PPOState:
        """The learner's part of a loop state, `[S, ...]`."""
        return state.learner
