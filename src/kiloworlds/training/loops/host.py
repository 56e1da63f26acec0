"""Training on environments that live outside XLA: any VectorEnv, one seed.

Actors step the environments on the host, a compiled update learns. The fused loop's twin: same
algorithm, same metrics.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from jax.stages import Compiled

from kiloworlds.algorithms.ppo import PPO, PPOState
from kiloworlds.core.errors import InvalidValueError, StateUnavailableError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import from_gymnasium
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops import guard
from kiloworlds.training.loops.actors import Actors
from kiloworlds.training.loops.collect import Acting, SteppedCollector, StreamedCollector
from kiloworlds.training.loops.fused_loop import UpdateMetrics
from kiloworlds.training.loops.host_state import (
    ENVIRONMENTS,
    KEY,
    LEARNER,
    NUM_ENVS,
    UPDATES,
    restart,
    restored_key,
    restored_learner,
    run_updates,
)
from kiloworlds.training.loops.stopwatch import Stopwatch
from kiloworlds.training.storage.arrays import Arrays, part, to_arrays
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.faults import Sparingly, logger
from kiloworlds.vector.process.pool import PoolExecutor

_RETURNS = "return_so_far"


class HostState(NamedTuple):
    """The learner between updates; the environments keep their own state."""

    learner: PPOState
    return_so_far: jax.Array
    updates: int


class HostTraining:
    """Trains on a `VectorEnv` with same-step autoreset.

    With `config.max_staleness` of 0 stepping and learning take turns. From 1 on the environments go
    on while the learner learns. With `config.batch_size` each environment goes at its own pace.

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
        self.envs = envs
        self.algorithm = PPO(
            config.settings,
            from_gymnasium(envs.single_observation_space),
            from_gymnasium(envs.single_action_space),
        )
        self._update = jax.jit(self._guarded_update)
        self._key = self._key_of_acting = fast_key(config.seed)
        # Compiled: done one operation after the other, keys take milliseconds.
        self._learning_key = jax.jit(lambda key, update: _keys(key, update)[1])
        self._acting_keys = jax.jit(
            lambda key, rollout: jax.random.split(_keys(key, rollout)[0], config.settings.num_steps)
        )
        self._stopwatch = Stopwatch()
        self._tells_unsaved = Sparingly()
        # Where there is another device, acting does not wait for learning.
        self._acting_device = jax.devices()[-1] if config.max_staleness else jax.devices()[0]
        streams = isinstance(envs, PoolExecutor) and envs.batch_size < envs.num_envs
        collector = self._collector = (StreamedCollector if streams else SteppedCollector)(
            envs,  # type: ignore[arg-type]
            Acting(self.algorithm, self._stopwatch),
            config.settings.num_steps,
            lambda rollout: self._acting_keys(self._key_of_acting, rollout),
            self._stopwatch,
        )
        self.streamed = collector if isinstance(collector, StreamedCollector) else None
        """What collects, where the order depends on how fast each environment is."""
        self._actors = Actors(collector, config.max_staleness, config.num_updates, self._stopwatch)

    def init(self) -> HostState:
        """Resets the environments and makes a fresh learner."""
        learner_key, self._key = jax.random.split(self._key)
        learner = jax.jit(self.algorithm.init)(learner_key)
        return self._begin(learner, 0, self.config.seed)

    def _begin(
        self, learner: PPOState, updates: int, seed: int, environments: Arrays | None = None
    ) -> HostState:
        self._key_of_acting = jax.device_put(self._key, self._acting_device)
        self._actors.start(seed, updates, environments)
        self._publish(updates, learner)
        return HostState(learner, jnp.zeros(self.config.num_envs), updates)

    def roll_back(
        self, state: HostState, arrays: Arrays | None, seeds: list[int], number: int
    ) -> HostState:
        """The state with what was learnt as `save` gave it (None: nothing), and other random numbers
        from here on."""
        self._key = jax.random.fold_in(self._key, number)
        self._key_of_acting = jax.device_put(self._key, self._acting_device)
        learner = restored_learner(self.algorithm.init, self._key, arrays)
        self._publish(state.updates, learner)
        return state._replace(learner=learner, return_so_far=jnp.zeros(self.config.num_envs))

    def save(self, state: HostState) -> Arrays:
        """Copies of what was learnt, and of the environments' states where simulators save them;
        others start new episodes when training goes on."""
        saved = {
            LEARNER: self.learner(state),
            UPDATES: np.array([state.updates]),
            NUM_ENVS: np.array([self.config.num_envs]),
            KEY: self._key,
        }
        if self.saves_environments:
            try:
                saved |= {ENVIRONMENTS: self.envs.get_state(), _RETURNS: state.return_so_far}
            except StateUnavailableError as error:
                if self._tells_unsaved():
                    logger.warning("a checkpoint without the environments' states: %s", error)
        return to_arrays(saved)

    @property
    def saves_environments(self) -> bool:
        """Whether environments wait while the state is saved, and can save theirs."""
        return self.envs.saves_state and not self.config.max_staleness

    def restore(self, arrays: Arrays, say: Callable[[str], None]) -> tuple[HostState, int]:
        """The state that `save` gave, and how many updates it had.

        Args:
            say: hears that episodes start over.

        Raises:
            InvalidValueError: it is of other settings.
        """
        learner_key, self._key = jax.random.split(self._key)
        self._key = restored_key(self._key, arrays)
        learner = restored_learner(self.algorithm.init, learner_key, arrays)
        environments = part(arrays, f"{ENVIRONMENTS}/")
        same = int(arrays[NUM_ENVS][0]) == self.config.num_envs
        if environments and same and self.saves_environments:
            updates = int(arrays[UPDATES][0])
            state = self._begin(learner, updates, self.config.seed, environments)
            return state._replace(return_so_far=jnp.asarray(arrays[_RETURNS])), updates
        updates, seed = restart(self.config, arrays, say)
        return self._begin(learner, updates, seed), updates

    def run(
        self, state: HostState, count: int, stop: Callable[[], bool] = lambda: False
    ) -> tuple[HostState, UpdateMetrics]:
        """Runs `count` updates, or fewer where `stop()` after one; see `FusedTraining.run`."""
        return run_updates(self._one_update, state, count, stop)

    def _publish(self, version: int, learner: PPOState) -> None:
        policy = self.algorithm.policy(learner)
        self._actors.publish(version, jax.device_put(policy, self._acting_device))

    def _one_update(self, state: HostState) -> tuple[HostState, UpdateMetrics]:
        collected = self._actors.rollout(state.updates)
        began = time.perf_counter()
        learning_rate = self.config.settings.learning_rate
        if self.config.settings.anneal_learning_rate:
            learning_rate *= 1.0 - state.updates / self.config.num_updates
        learner, return_so_far, metrics, fault = self._update(
            state.learner,
            collected.rollout,
            state.return_so_far,
            self._learning_key(self._key, state.updates),
            jnp.float32(learning_rate),
        )
        metrics = {
            **jax.tree.map(np.asarray, metrics),
            "learning_rate": np.float32(learning_rate),
            "staleness": np.float32(collected.staleness.mean()),
            "staleness_max": np.float32(collected.staleness.max()),
        }
        self._stopwatch.add("network_learns", time.perf_counter() - began)
        self._publish(state.updates + 1, learner)
        return HostState(learner, return_so_far, state.updates + 1), UpdateMetrics(
            collected.episodes, metrics, jax.tree.map(np.asarray, fault)
        )

    def _guarded_update(self, learner, rollout, return_so_far, key, learning_rate):
        """An update of which nothing is kept if any of its numbers is not finite."""
        old = learner, return_so_far
        fault, _ = guard.find({"observation": rollout.observation, "reward": rollout.reward})
        learner, return_so_far, metrics = self.algorithm.update(
            learner, rollout, return_so_far, key, learning_rate
        )
        fault = guard.with_learner(fault, guard.all_finite(learner))
        learner, return_so_far = guard.keep(fault.field > 0, old, (learner, return_so_far))
        return learner, return_so_far, metrics, fault

    # For whoever wants to know where the time goes.

    def collect(self, state: HostState) -> HostState:
        """A rollout that nothing is learnt from."""
        self._actors.rollout(state.updates)
        self._publish(state.updates + 1, state.learner)
        return state._replace(updates=state.updates + 1)

    def learning(self, state: HostState) -> tuple[HostState, Compiled]:
        """Collects a rollout that nothing is learnt from; the program that learns from such."""
        collected = self._actors.rollout(state.updates)
        self._publish(state.updates + 1, state.learner)
        program = self._update.lower(
            state.learner,
            collected.rollout,
            state.return_so_far,
            self._learning_key(self._key, state.updates),
            jnp.float32(self.config.settings.learning_rate),
        ).compile()
        return state._replace(updates=state.updates + 1), program

    def seconds(self) -> dict[str, float]:
        """Seconds since the last call of `host_metrics`, by activity."""
        return self._stopwatch.seconds()

    @property
    def pool(self) -> PoolExecutor | None:
        """The workers; None where there are none."""
        return self.envs if isinstance(self.envs, PoolExecutor) else None

    @property
    def takes_turns(self) -> bool:
        """Whether all environments step together, and wait while the learner learns."""
        return self.streamed is None and not self.config.max_staleness

    def at_step(self, state: HostState, step: int) -> tuple[Any, np.ndarray]:
        """Steps the environments to just before a step of the next rollout.

        Returns:
            What they see, and what the policy does then, `[N, ...]`.
        """
        assert isinstance(self._collector, SteppedCollector)
        return self._collector.at_step(state.updates, self._actors.board, step)

    @property
    def backend(self) -> str:
        """The executor of the environments, with the engine where it is native."""
        engine = getattr(self.envs, "engine", None)
        return f"{self.envs.backend}:{engine}" if engine else self.envs.backend

    def host_metrics(self) -> dict[str, float]:
        """Shares of the time since the last call, and what the executor has counted so far."""
        shares = self._stopwatch.shares()
        metrics: dict[str, float] = {
            "time/learner_waits": shares.get("learner_waits", 0.0),
            "time/environments_wait": 1.0 - shares.get("environments_step", 0.0),
            "time/network_acts": shares.get("network_acts", 0.0),
            "time/network_learns": shares.get("network_learns", 0.0),
        }
        metrics = {name: round(float(np.clip(share, 0, 1)), 4) for name, share in metrics.items()}
        if isinstance(self.envs, PoolExecutor):
            slowest, share = self.envs.slowest()
            metrics |= {
                "environments/lost": self.envs.lost_episodes,
                "environments/restarts": self.envs.restarts,
                "environments/quarantined": self.envs.num_quarantined,
                "environments/slowest": slowest,
                "environments/share_slowest": round(share, 4),
            }
        return metrics

    def close(self) -> None:
        """Ends the actors and closes the environments."""
        self._actors.close()
        self.envs.close()
        if self.streamed is not None:
            self.streamed.order.close()

    def learner(self, state: HostState) -> PPOState:
        """The learner's state with a seed axis of one."""
        return jax.tree.map(lambda leaf: leaf[None], state.learner)


def _keys(key: jax.Array, update: Any) -> jax.Array:
    """The keys for acting and for learning."""
    return jax.random.split(jax.random.fold_in(key, update))
