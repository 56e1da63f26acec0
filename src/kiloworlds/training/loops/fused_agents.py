"""The fused loop of several agents: environments, policies and learning in one compiled program.

Letters in shapes: T steps per rollout, N environments, A agents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from kiloworlds.algorithms.experience import AgentsExperience, AgentsSeen, KindLayout, Team
from kiloworlds.core.environment import Environment, MultiAgentEnvironment
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops import guard
from kiloworlds.training.loops.agents_metrics import sum_episodes
from kiloworlds.training.loops.fused_loop import (
    Episodes,
    FusedLoop,
    UpdateMetrics,
    split_vector_state,
)
from kiloworlds.training.placement import Axis
from kiloworlds.vector.functional import Agents, VectorState, VectorStep


class AgentsLoopState(NamedTuple):
    """Everything that determines the future of one training."""

    learner: PyTree
    environments: VectorState
    observation: PyTree
    agents: Agents
    memory: PyTree
    carried: PyTree
    key: Key[Array, ""]
    updates: Int[Array, ""]
    varied: dict[str, Float[Array, ""]] = {}  # noqa: RUF012
    """Its own values of settings; none unless a population is trained."""


class FusedAgentsTraining(FusedLoop):
    """Trains several agents on a compiled environment.

    Args:
        make_algorithm: builds the algorithm from its settings, the team and the device axes.
        config, env, reference: see `FusedLoop`.
    """

    def __init__(
        self,
        make_algorithm: Callable[..., Any],
        config: TrainConfig,
        env: Environment,
        reference: Environment | None = None,
    ):
        assert isinstance(env, MultiAgentEnvironment)
        self.layout = KindLayout(env.kinds)
        self._make_algorithm, self._team = make_algorithm, Team.of(env)
        super().__init__(config, env, reference)

    def _build_algorithm(self) -> None:
        self.algorithm = self._make_algorithm(
            self.config.settings, self._team, **self._algorithm_axes
        )
        self._one_rollout = jax.jit(self._rollout, inline=True)

    def _state_on_devices(self) -> AgentsLoopState:
        everywhere: Any = PartitionSpec()
        split: Any = PartitionSpec(None, Axis.ENVIRONMENTS)
        environments = split_vector_state()
        return AgentsLoopState(
            everywhere, environments, split, split, split, split, everywhere, everywhere, everywhere
        )

    def _init_one(self, key: Key[Array, ""]) -> AgentsLoopState:
        learner_key, environment_key, loop_key = jax.random.split(key, 3)
        environments, observation = self._start_environments(environment_key)
        state = AgentsLoopState(
            self.algorithm.init(learner_key),
            environments,
            observation,
            self._vector.agents(environments),
            self.algorithm.begin(self._num_envs),
            None,
            loop_key,
            jnp.int32(0),
        )
        experience = jax.eval_shape(self._one_rollout, state, loop_key)[1]
        return state._replace(carried=self.algorithm.carry(self._num_envs, experience))

    def _progress(self, updates: Int[Array, ""]) -> Float[Array, ""]:
        return updates / self.config.num_updates

    def _rollout(
        self, state: AgentsLoopState, key: Key[Array, ""]
    ) -> tuple[AgentsLoopState, AgentsExperience, Episodes]:
        algorithm = self.algorithm
        policy = algorithm.policy(state.learner, self._progress(state.updates))

        def act_and_step(carry, step_key):
            environments, observation, agents, memory = carry
            seen = AgentsSeen(
                observation,
                agents.alive,
                agents.alive,
                agents.available_actions,
                agents.global_state,
            )
            actions, drawn, memory = algorithm.act(policy, step_key, seen, memory)
            environments, step = self._vector.step(environments, actions)
            after: Any = step.agents
            memory = algorithm.forget(memory, _own_ends(step), step.finished)
            carry = environments, step.observation, after.next, memory
            return carry, (seen, drawn, actions, _left_of(step))

        start = state.environments, state.observation, state.agents, state.memory
        keys = jax.random.split(key, self.config.settings.num_steps)
        after, (seen, drawn, actions, steps) = jax.lax.scan(act_and_step, start, keys)
        to_agents: Any = steps.agents
        final = to_agents.final
        experience = AgentsExperience(
            seen=seen,
            drawn=algorithm.settle(policy, drawn),
            action=actions,
            reward=self._shape(steps.reward, steps.info, state.updates),
            terminated=to_agents.terminated,
            finished=_own_ends(steps),
            episode_terminated=steps.terminated,
            episode_finished=steps.finished,
            next_observation=steps.final_observation,
            next_global_state=final.global_state,
            next_alive=final.alive,
            next_legal=final.available_actions,
            lost=jnp.zeros_like(steps.finished) if algorithm.replays else None,
            memory=state.memory,
            own_reward=steps.reward if self._has_hints(steps.info) else None,
        )
        environments, observation, agents, memory = after
        state = state._replace(
            environments=environments, observation=observation, agents=agents, memory=memory
        )
        return state, experience, sum_episodes(self.layout, steps)

    def _shape(
        self, reward: Float[Array, "T N A"], info: dict[str, Any], updates: Int[Array, ""]
    ) -> Float[Array, "T N A"]:
        """Rewards with the environment's hints added, as long as they count."""
        if not self._has_hints(info):
            return reward
        steps = updates * jnp.float32(self.config.steps_per_update)
        return reward + self.config.settings.shaping_weight(steps) * info["shaped_reward"]

    def _has_hints(self, info: dict[str, Any]) -> bool:
        return self.config.settings.shapes_rewards and "shaped_reward" in info

    def _update(
        self, state: AgentsLoopState
    ) -> tuple[AgentsLoopState, UpdateMetrics, Bool[Array, " N"]]:
        act_key, learn_key = self._update_keys(state.key, state.updates)
        progress = self._progress(state.updates)
        state, experience, episodes = self._one_rollout(state, act_key)
        seen = {"observation": experience.seen.observation, "reward": experience.reward}
        fault, broken = self._find_fault(seen)
        if self.algorithm.replays:  # a replay is not taken back, so nothing bad may get into it
            lost = jnp.broadcast_to(broken, experience.episode_finished.shape)
            experience = guard.without_bad_numbers(experience)._replace(lost=lost)
        learner, carried, metrics = self.algorithm.update(
            state.learner, experience, state.carried, learn_key, progress
        )
        is_finite = guard.all_finite(learner)
        if self.algorithm.replays:
            learner = guard.keep(~is_finite, state.learner, learner)
        else:
            is_bad = ~is_finite | (fault.field > 0)
            learner, carried = guard.keep(
                is_bad, (state.learner, state.carried), (learner, carried)
            )
        fault = guard.with_learner(fault, is_finite)
        episodes, metrics = self._over_devices(episodes, metrics)
        state = state._replace(learner=learner, carried=carried, updates=state.updates + 1)
        return state, UpdateMetrics(episodes, metrics, fault), broken

    def _collect(self, state: AgentsLoopState) -> tuple[AgentsLoopState, PyTree]:
        act_key, _ = self._update_keys(state.key, state.updates)
        state, experience, episodes = self._one_rollout(state, act_key)
        return state._replace(updates=state.updates + 1), (experience, episodes)

    def _stored(self, step: VectorStep) -> PyTree:
        return step.observation, _left_of(step)

    def _moved(
        self, state: AgentsLoopState, environments: VectorState, observation: PyTree
    ) -> AgentsLoopState:
        return state._replace(
            environments=environments,
            observation=observation,
            agents=self._vector.agents(environments),
        )

    def _actions(self, state: AgentsLoopState) -> PyTree:
        act_key, _ = self._update_keys(state.key, state.updates)
        return self._one_rollout(state, act_key)[1].action

    def _start_over(self, state: AgentsLoopState, broken: Bool[Array, " N"]) -> AgentsLoopState:
        environments, observation = self._vector.start_over(
            state.environments, broken, state.observation
        )
        everybody = jnp.broadcast_to(broken[:, None], state.agents.alive.shape)
        state = self._moved(state, environments, observation)
        return state._replace(memory=self.algorithm.forget(state.memory, everybody, broken))


def _left_of(step: VectorStep) -> VectorStep:
    """A step without what is in the next row's observation, and with the step's own info."""
    agents = step.agents
    assert agents is not None
    nothing: Any = None
    return step._replace(
        observation=nothing, info=step.final_info, agents=agents._replace(next=nothing)
    )


def _own_ends(step: VectorStep) -> Bool[Array, "... A"]:
    """Which agents' own part ended in a step: with the episode, or before it."""
    assert step.agents is not None
    return step.agents.terminated | step.finished[..., None]
