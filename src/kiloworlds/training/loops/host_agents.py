"""Training several agents on environments that live outside XLA: any vector with an agent axis.

The fused loop's twin: same algorithms, same metrics. Letters in shapes: T steps, N environments, A
agents.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.stages import Compiled
from jaxtyping import PyTree

from kiloworlds.algorithms.experience import AgentsExperience, AgentsSeen
from kiloworlds.algorithms.protocol import AgentsAlgorithm
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops import guard
from kiloworlds.training.loops.fused_loop import Episodes, UpdateMetrics
from kiloworlds.training.loops.host_state import (
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
from kiloworlds.training.storage.arrays import Arrays, from_arrays, to_arrays
from kiloworlds.vector.pettingzoo import PettingZooVectorEnv
from kiloworlds.vector.process.pool import PoolExecutor

_CARRIED = "carried"


class HostAgentsState(NamedTuple):
    """The learner between updates; the environments keep their own state."""

    learner: PyTree
    carried: PyTree
    updates: int


class HostAgentsTraining:
    """Trains several agents on a vector of PettingZoo environments with same-step autoreset.

    Stepping and learning take turns.

    Args:
        algorithm: for the vector's agents.
        config: the settings; `num_seeds` must be 1.
        envs: the environments, `config.num_envs` of them.
    """

    def __init__(self, algorithm: AgentsAlgorithm, config: TrainConfig, envs: PettingZooVectorEnv):
        for name, neutral in (
            ("num_seeds", (1,)),
            ("max_staleness", (0,)),
            ("batch_size", (None, config.num_envs)),
        ):
            if getattr(config, name) not in neutral:
                raise InvalidValueError(
                    f"{name}={getattr(config, name)}: several agents outside XLA train one seed, all "
                    f"environments in step; leave {name} out."
                )
        self.config, self.algorithm = config, algorithm
        self._envs = envs
        self._act = jax.jit(self._forget_and_act)
        self._update = jax.jit(self._settle_and_update)
        self._keys = jax.jit(
            lambda key, update: jax.random.split(
                jax.random.fold_in(key, update), config.settings.num_steps + 1
            )
        )
        self._key = fast_key(config.seed)
        self._stopwatch = Stopwatch()
        self._seen: AgentsSeen
        self._memory: PyTree = None
        self._ends: Any = None
        self._restored: Arrays | None = None

    def _forget_and_act(self, policy, keys, index, seen, memory, ends):
        memory = self.algorithm.forget(memory, *ends)
        actions, drawn, after = self.algorithm.act(policy, keys[index], seen, memory)
        return actions, drawn, memory, after

    def _settle_and_update(self, learner, experience, carried, key, progress):
        """An update of which nothing is kept if any of its numbers is not finite."""
        old = learner, carried
        policy = self.algorithm.policy(learner, progress)
        experience = experience._replace(drawn=self.algorithm.settle(policy, experience.drawn))
        seen = {"observation": experience.seen.observation, "reward": experience.reward}
        fault, _ = guard.find(seen)
        learner, carried, metrics = self.algorithm.update(
            learner, experience, carried, key, progress
        )
        fault = guard.with_learner(fault, guard.all_finite(learner))
        learner, carried = guard.keep(fault.field > 0, old, (learner, carried))
        return learner, carried, metrics, fault

    def init(self) -> HostAgentsState:
        """Resets the environments and makes a fresh learner."""
        learner_key, self._key = jax.random.split(self._key)
        self._begin(self.config.seed)
        return HostAgentsState(jax.jit(self.algorithm.init)(learner_key), None, 0)

    def _begin(self, seed: int) -> None:
        num_envs = self.config.num_envs
        self._memory = self.algorithm.begin(num_envs)
        observations, infos = self._envs.reset(seed=seed)
        self._seen = _seen(observations, infos)
        nobody = np.zeros((num_envs, self._envs.num_agents), bool)
        self._ends = nobody, nobody[:, 0]

    def roll_back(
        self, state: HostAgentsState, arrays: Arrays | None, seeds: list[int], number: int
    ) -> HostAgentsState:
        """The state with what was learnt as `save` gave it (None: nothing), and other random numbers
        from here on."""
        self._key = jax.random.fold_in(self._key, number)
        learner = restored_learner(self.algorithm.init, self._key, arrays)
        return state._replace(learner=learner)

    def save(self, state: HostAgentsState) -> Arrays:
        """Copies of what was learnt; environments start new episodes when training goes on."""
        return to_arrays(
            {
                LEARNER: self.learner(state),
                _CARRIED: state.carried,
                UPDATES: np.array([state.updates]),
                NUM_ENVS: np.array([self.config.num_envs]),
                KEY: self._key,
            }
        )

    def restore(self, arrays: Arrays, say: Callable[[str], None]) -> tuple[HostAgentsState, int]:
        """The state that `save` gave, and how many updates it had; see `HostTraining.restore`."""
        learner_key, self._key = jax.random.split(self._key)
        self._key = restored_key(self._key, arrays)
        learner = restored_learner(self.algorithm.init, learner_key, arrays)
        updates, seed = restart(self.config, arrays, say)
        self._begin(seed)
        self._restored = arrays
        return HostAgentsState(learner, None, updates), updates

    def run(
        self, state: HostAgentsState, count: int, stop: Callable[[], bool] = lambda: False
    ) -> tuple[HostAgentsState, UpdateMetrics]:
        """Runs `count` updates, or fewer where `stop()` after one; see `FusedLoop.run`."""
        return run_updates(self._one_update, state, count, stop)

    def _one_update(self, state: HostAgentsState) -> tuple[HostAgentsState, UpdateMetrics]:
        experience, keys, progress, episodes = self._rollout_of(state)
        began = time.perf_counter()
        carried = state.carried
        if carried is None:  # its shapes are those of the experience
            carried = self.algorithm.carry(self.config.num_envs, experience)
        if self._restored is not None:
            like = {_CARRIED: carried}
            carried = from_arrays(like, self._restored, "the checkpoint")[_CARRIED]
            self._restored = None
        learner, carried, metrics, fault = self._update(
            state.learner, experience, carried, keys[-1], progress
        )
        metrics = jax.tree.map(np.asarray, metrics)
        self._stopwatch.add("network_learns", time.perf_counter() - began)
        return HostAgentsState(learner, carried, state.updates + 1), UpdateMetrics(
            episodes, metrics, jax.tree.map(np.asarray, fault)
        )

    # For whoever wants to know where the time goes.

    def collect(self, state: HostAgentsState) -> HostAgentsState:
        """A rollout that nothing is learnt from."""
        self._rollout_of(state)
        return state._replace(updates=state.updates + 1)

    def learning(self, state: HostAgentsState) -> tuple[HostAgentsState, Compiled]:
        """Collects a rollout that nothing is learnt from; the program that learns from such."""
        experience, keys, progress, _ = self._rollout_of(state)
        carried = state.carried
        if carried is None:
            carried = self.algorithm.carry(self.config.num_envs, experience)
        program = self._update.lower(
            state.learner, experience, carried, keys[-1], progress
        ).compile()
        return state._replace(updates=state.updates + 1), program

    def seconds(self) -> dict[str, float]:
        """Seconds since the last call of `host_metrics`, by activity."""
        return self._stopwatch.seconds()

    @property
    def pool(self) -> PoolExecutor | None:
        """The workers; None where there are none."""
        executor = self._envs.executor
        return executor if isinstance(executor, PoolExecutor) else None

    def _rollout_of(
        self, state: HostAgentsState
    ) -> tuple[AgentsExperience, jax.Array, np.float32, Episodes]:
        """A rollout with the policy of a state, the keys of its update and how far training is."""
        progress = np.float32(state.updates / self.config.num_updates)
        keys = self._keys(self._key, state.updates)
        policy = self.algorithm.policy(state.learner, progress)
        experience, episodes = self._collect(policy, keys)
        return experience, keys, progress, episodes

    def _collect(self, policy: PyTree, keys: jax.Array) -> tuple[AgentsExperience, Episodes]:
        rows, first_memory = [], None
        tally = _Tally(self._envs)
        for step in range(self.config.settings.num_steps):
            began = time.perf_counter()
            seen = self._seen
            actions, drawn, memory, self._memory = self._act(
                policy, keys, np.int32(step), seen, self._memory, self._ends
            )
            first_memory = memory if step == 0 else first_memory
            actions = jax.tree.map(np.asarray, actions)
            acted = time.perf_counter()
            self._stopwatch.add("network_acts", acted - began)
            result: Any = self._envs.step(actions)
            observations, rewards, terminated, truncated, infos = result
            self._stopwatch.add("environments_step", time.perf_counter() - acted)
            tally.add(infos)
            following = _seen(observations, infos)
            ends: Any = (terminated | truncated) & seen.alive
            over: Any = (terminated | truncated).all(axis=1)
            # Where an episode ended, what follows is the next one's start.
            survived: Any = np.where(over[:, None], seen.alive & ~terminated, following.alive)
            final = _with_finals(following.observation, infos.get("final_obs"), over)
            legal = jax.tree.map(lambda mask, over=over: _all_where(over, mask), following.legal)
            final_legal = _with_finals(legal, infos.get("final_action_mask"), over)
            rows.append(
                AgentsExperience(
                    seen=seen,
                    drawn=drawn,
                    action=actions,
                    reward=rewards.astype(np.float32),
                    terminated=terminated & seen.alive,
                    finished=ends | over[:, None],
                    episode_terminated=over & terminated.any(axis=1) & ~truncated.any(axis=1),
                    episode_finished=over,
                    next_observation=final,
                    next_global_state=None,
                    next_alive=survived,
                    next_legal=final_legal,
                    lost=infos.get("lost", np.zeros_like(over)),
                    memory=None,
                )
            )
            self._seen, self._ends = following, (ends, over)
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        return stacked._replace(memory=first_memory), tally.episodes()

    @property
    def backend(self) -> str:
        """The executor of the environments."""
        return self._envs.backend

    def host_metrics(self) -> dict[str, float]:
        """Shares of the time since the last call."""
        shares = self._stopwatch.shares()
        names = ("environments_step", "network_acts", "network_learns")
        return {
            f"time/{name}": round(float(np.clip(shares.get(name, 0.0), 0, 1)), 4) for name in names
        }

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()

    def learner(self, state: HostAgentsState) -> PyTree:
        """The learner's state with a seed axis of one."""
        return jax.tree.map(lambda leaf: leaf[None], state.learner)


def _seen(observations: PyTree, infos: dict[str, Any]) -> AgentsSeen:
    """What agents act on, from what a vector returns."""
    mask = infos.get("action_mask")
    legal = None if mask is None else jax.tree.map(lambda leaf: np.asarray(leaf, bool), mask)
    return AgentsSeen(observations, infos["alive"], infos["acting"], legal, None)


def _all_where(over: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask that allows everything in the environments whose episode ended."""
    return mask | over.reshape(-1, *[1] * (mask.ndim - 1))


def _with_finals(following: PyTree, finals: Any, over: np.ndarray) -> PyTree:
    """What a step led to: where an episode ended what it ended with, not what the next begins with."""
    if finals is None or not over.any():
        return following
    following = jax.tree.map(np.copy, following)
    for index in np.nonzero(over)[0]:

        def put(batch, value, index=index):
            batch[index] = value

        if finals[index] is not None:
            jax.tree.map(put, following, finals[index])
    return following


class _Tally:
    """Sums over the episodes that end in a rollout."""

    def __init__(self, envs: PettingZooVectorEnv):
        self._kinds = envs.kinds
        self._sums = {"ended": 0.0, "return": 0.0, "length": 0.0}
        several = self._kinds if len(self._kinds) > 1 else ()
        self._others = {f"ep_rew_mean/{name}": 0.0 for name in several}

    def add(self, infos: dict[str, Any]) -> None:
        if "episode" not in infos:
            return
        ended = infos["_episode"]
        returns = infos["episode"]["r"][ended]
        self._sums["ended"] += ended.sum()
        self._sums["return"] += returns.mean(axis=1).sum()
        self._sums["length"] += infos["episode"]["l"][ended].sum()
        for name in self._others:
            kind = self._kinds[name.split("/", 1)[1]]
            self._others[name] += returns[:, list(kind.indices)].mean(axis=1).sum()

    def episodes(self) -> Episodes:
        sums = {name: np.float32(total) for name, total in self._sums.items()}
        others = {name: np.float32(total) for name, total in self._others.items()}
        return Episodes(sums["ended"], sums["return"], sums["length"], others)
