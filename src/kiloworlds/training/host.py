"""The rollout loop for environments that live outside XLA: any VectorEnv, one seed.

Steps the environments on the host, learns in a compiled update. The fused loop's twin: same
algorithm, same metrics.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import PyTree

from kiloworlds.algorithms.ppo import PPO, PPOState, Rollout
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import from_gymnasium
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.fused import Episodes, UpdateMetrics
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.process.pool import ProcessExecutor


class HostState(NamedTuple):
    """The learner between updates; the environments keep their own state."""

    learner: PPOState
    return_so_far: jax.Array
    updates: int


class HostTraining:
    """Trains on a `VectorEnv` with same-step autoreset.

    Args:
        config: the settings; `num_seeds` must be 1.
        envs: the environments, `config.num_envs` of them.
    """

    def __init__(self, config: TrainConfig, envs: VectorEnv):
        if config.num_seeds != 1:
            raise InvalidValueError(
                f"num_seeds={config.num_seeds}: several seeds at once need a compiled environment; "
                f"{config.env_id} runs on the {envs.backend!r} backend. Train them one by one."
            )
        if envs.metadata["autoreset_mode"] != AutoresetMode.SAME_STEP:
            raise InvalidValueError(
                "training needs autoreset_mode='same_step', got "
                f"{envs.metadata['autoreset_mode'].value!r}."
            )
        self.config = config
        self._envs = envs
        self.algorithm = PPO(
            config.settings,
            from_gymnasium(envs.single_observation_space),
            from_gymnasium(envs.single_action_space),
        )
        self._act = jax.jit(self._act_and_map)
        self._update = jax.jit(self.algorithm.update)
        self._key = fast_key(config.seed)
        self._observations: PyTree = None

    def _act_and_map(self, policy, key, observations):
        raw, outputs = self.algorithm.act(policy, key, observations)
        log_prob = self.algorithm.log_prob(policy, outputs, raw)
        return raw, log_prob, self.algorithm.head.to_environment(raw)

    def init(self) -> HostState:
        """Resets the environments and makes a fresh learner."""
        self._observations, _ = self._envs.reset(seed=self.config.seed)
        learner_key, self._key = jax.random.split(self._key)
        return HostState(
            jax.jit(self.algorithm.init)(learner_key), jnp.zeros(self.config.num_envs), 0
        )

    def run(self, state: HostState, count: int) -> tuple[HostState, UpdateMetrics]:
        """Runs `count` updates; see `FusedTraining.run`."""
        rows = []
        for _ in range(count):
            state, row = self._one_update(state)
            rows.append(row)
        return state, jax.tree.map(lambda *leaves: np.stack(leaves)[None], *rows)

    def _one_update(self, state: HostState) -> tuple[HostState, UpdateMetrics]:
        act_key, learn_key = jax.random.split(jax.random.fold_in(self._key, state.updates))
        rollout, episodes = self._rollout(state, act_key)
        learning_rate = self.config.settings.learning_rate
        if self.config.settings.anneal_learning_rate:
            learning_rate *= 1.0 - state.updates / self.config.num_updates
        learner, return_so_far, metrics = self._update(
            state.learner, rollout, state.return_so_far, learn_key, jnp.float32(learning_rate)
        )
        metrics = {**jax.tree.map(np.asarray, metrics), "learning_rate": np.float32(learning_rate)}
        return HostState(learner, return_so_far, state.updates + 1), UpdateMetrics(
            episodes, metrics
        )

    def _rollout(self, state: HostState, key: jax.Array) -> tuple[Rollout, Episodes]:
        policy = self.algorithm.policy(state.learner)
        keys = jax.random.split(key, self.config.settings.num_steps)
        rows, returns, lengths = [], [], []
        for step_key in keys:
            observations = self._observations
            raw, log_prob, actions = self._act(policy, step_key, observations)
            self._observations, rewards, terminated, truncated, infos = self._envs.step(
                jax.tree.map(np.asarray, actions)
            )
            finished = terminated | truncated
            rows.append(
                Rollout(
                    observations,
                    raw,
                    log_prob,
                    np.asarray(rewards, np.float32),  # type: ignore[arg-type]
                    terminated,
                    finished,
                    self._next_observations(finished, infos),
                    ~infos.get("lost", np.zeros_like(finished)),
                )
            )
            if "episode" in infos:  # none for an episode that was lost
                ended = infos["_episode"]
                returns.extend(infos["episode"]["r"][ended])
                lengths.extend(infos["episode"]["l"][ended])
        rollout = jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *rows)
        episodes = Episodes(
            np.float32(len(returns)), np.float32(sum(returns)), np.float32(sum(lengths))
        )
        return rollout, episodes

    def _next_observations(self, finished: np.ndarray, infos: dict) -> PyTree:
        """What the step led to: the final observation where an episode ended."""
        if not finished.any():
            return self._observations
        observations = jax.tree.map(np.copy, self._observations)
        for index in np.nonzero(finished)[0]:
            final = infos["final_obs"][index]

            def put(batch, value, index=index):
                batch[index] = value

            jax.tree.map(put, observations, final)
        return observations

    @property
    def backend(self) -> str:
        """The executor of the environments."""
        return self._envs.backend

    @property
    def counters(self) -> dict[str, int]:
        """What the environments' executor has counted so far, for the metrics."""
        if not isinstance(self._envs, ProcessExecutor):
            return {}
        return {
            "environments/lost": self._envs.lost_episodes,
            "environments/restarts": self._envs.restarts,
        }

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()

    def learner(self, state: HostState) -> PPOState:
        """The learner's state with a seed axis of one."""
        return jax.tree.map(lambda leaf: leaf[None], state.learner)
