"""The fused loop: environments, policy and learning of one agent in one compiled program.

Letters in shapes: T steps per rollout, N environments.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from kiloworlds.algorithms.ppo import PPO, PPOState, Rollout
from kiloworlds.core.environment import Environment
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops import guard
from kiloworlds.training.loops.fused_loop import (
    Episodes,
    FusedLoop,
    UpdateMetrics,
    split_vector_state,
)
from kiloworlds.training.placement import Axis
from kiloworlds.vector.functional import VectorState


class LoopState(NamedTuple):
    """Everything that determines the future of one training."""

    learner: PPOState
    environments: VectorState
    observation: PyTree
    return_so_far: Float[Array, " N"]
    key: Key[Array, ""]
    updates: Int[Array, ""]
    varied: dict[str, Float[Array, ""]] = {}  # noqa: RUF012
    """Its own values of settings; none unless a population is trained."""


class FusedTraining(FusedLoop):
    """Trains one agent on a compiled environment."""

    def __init__(self, config: TrainConfig, env: Environment, reference: Environment | None = None):
        self._spaces = env.observation_space, env.action_space
        super().__init__(config, env, reference)

    def _build_algorithm(self) -> None:
        self.algorithm = PPO(self.config.settings, *self._spaces, **self._algorithm_axes)

    def _state_on_devices(self) -> LoopState:
        everywhere: Any = PartitionSpec()
        split: Any = PartitionSpec(None, Axis.ENVIRONMENTS)
        return LoopState(
            everywhere, split_vector_state(), split, split, everywhere, everywhere, everywhere
        )

    def _init_one(self, key: Key[Array, ""]) -> LoopState:
        learner_key, environment_key, loop_key = jax.random.split(key, 3)
        environments, observation = self._start_environments(environment_key)
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

    def _update(self, state: LoopState) -> tuple[LoopState, UpdateMetrics, Bool[Array, " N"]]:
        config = self.config
        act_key, learn_key = self._update_keys(state.key, state.updates)
        environments, observation, rollout, episodes = self._rollout(state, act_key)
        learning_rate = jnp.float32(config.settings.learning_rate)
        if config.settings.anneal_learning_rate:
            learning_rate = learning_rate * (1.0 - state.updates / config.num_updates)
        learner, return_so_far, metrics = self.algorithm.update(
            state.learner, rollout, state.return_so_far, learn_key, learning_rate
        )
        seen = {"observation": rollout.observation, "reward": rollout.reward}
        fault, broken = self._find_fault(seen)
        fault = guard.with_learner(fault, guard.all_finite(learner))
        learner, return_so_far = guard.keep(
            fault.field > 0, (state.learner, state.return_so_far), (learner, return_so_far)
        )
        metrics["learning_rate"] = learning_rate
        episodes, metrics = self._over_devices(episodes, metrics)
        state = LoopState(
            learner,
            environments,
            observation,
            return_so_far,
            state.key,
            state.updates + 1,
            state.varied,
        )
        return state, UpdateMetrics(episodes, metrics, fault), broken

    def _collect(self, state: LoopState) -> tuple[LoopState, PyTree]:
        act_key, _ = self._update_keys(state.key, state.updates)
        environments, observation, rollout, episodes = self._rollout(state, act_key)
        state = self._moved(state, environments, observation)
        return state._replace(updates=state.updates + 1), (rollout, episodes)

    def _actions(self, state: LoopState) -> PyTree:
        act_key, _ = self._update_keys(state.key, state.updates)
        _, _, rollout, _ = self._rollout(state, act_key)
        return self.algorithm.head.to_environment(rollout.raw_action)

    def _start_over(self, state: LoopState, broken: Bool[Array, " N"]) -> LoopState:
        environments, observation = self._vector.start_over(
            state.environments, broken, state.observation
        )
        return self._moved(state, environments, observation)
