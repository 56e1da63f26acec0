"""The executor for compiled environments: one XLA program steps them all."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Array, Bool, PyTree

from kiloworlds.core.checks import require_count, require_flag
from kiloworlds.core.devices import elementwise_compiler_options
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.core.random import fast_key
from kiloworlds.vector.base import VectorEnv, expand_seeds, parse_autoreset_mode
from kiloworlds.vector.functional import (
    InitFunction,
    StepFunction,
    VectorFunctions,
    VectorState,
    VectorStep,
)
from kiloworlds.vector.infos import episode_infos, with_masks
from kiloworlds.vector.sharding import device_mesh, put_environments, shard_environments
from kiloworlds.vector.snapshot import VectorSnapshot


class Outcome(NamedTuple):
    """What one step tells: of several agents flags are `[N, A]`, and `masks` says what they may do."""

    step: VectorStep
    terminated: Bool[Array, "N ..."]
    truncated: Bool[Array, "N ..."]
    masks: dict[str, PyTree]


class CompiledVectorEnv(VectorEnv):
    """Runs `num_envs` copies of a compiled environment as a `gymnasium.vector.VectorEnv`.

    Environments of several agents run in `CompiledAgentsVectorEnv`, which has their axis.

    Batched parameters: a field of `env` with one axis more than in `reference` gives each copy its
    own value. Environment i is seeded with its own seed, so results depend neither on how many
    others run nor on the number of devices.

    Args:
        env: the environment to copy.
        num_envs: how many copies.
        reference: the environment with no field batched; `env` itself if not given.
        seed: the seed of the first `reset` where that gives none; drawn if None.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        devices: JAX devices to spread the environments over; must divide `num_envs`.
        output: "numpy" returns arrays on the host, safe to keep and to write to; "jax" leaves them
            on the device.
        episode_statistics: whether infos carry "episode" (return "r", length "l", seconds "t") where
            one ended. Turn off to wrap in Gymnasium's own RecordEpisodeStatistics.
        spec_id: the id shown in representations.
    """

    backend = "compiled"

    def __init__(
        self,
        env: Environment,
        num_envs: int,
        *,
        reference: Environment | None = None,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        devices: int = 1,
        output: Literal["numpy", "jax"] = "numpy",
        episode_statistics: bool = True,
        spec_id: str | None = None,
    ):
        num_envs = require_count("num_envs", num_envs)
        if output not in ("numpy", "jax"):
            raise InvalidValueError(f"output={output!r} is not 'numpy' or 'jax'.")
        self.env = env
        self._reference = reference or env
        self.spec_id = spec_id
        self.functions = VectorFunctions(
            env, self._reference, num_envs, parse_autoreset_mode(autoreset_mode)
        )
        self._describe(
            num_envs,
            env.observation_space.to_gymnasium(),
            env.action_space.to_gymnasium(),
            self.functions.autoreset_mode,
        )
        self.render_mode = (
            "rgb_array" if type(env.unwrapped).render is not Environment.render else "ansi"
        )
        self._output = output
        require_flag("episode_statistics", episode_statistics)
        self._episode_statistics = episode_statistics
        self._first_seed = None if seed is None else expand_seeds(seed, num_envs)
        self._mesh = device_mesh(devices, num_envs)

        options = elementwise_compiler_options()

        def shard(function: Callable) -> Callable:
            return jax.jit(shard_environments(function, self._mesh), compiler_options=options)

        self._init = shard(self.functions.init_from_seeds)
        self._step = shard(self._advance)
        self._reset_where = shard(self.functions.reset_where)
        self._look = shard(lambda state: (self.functions.reset_info(state), self._masks_in(state)))
        self._state: VectorState | None = None
        self._observation: PyTree = None
        self._masks: dict[str, PyTree] = {}
        self._tells_of_starts = False  # whether the environment has infos of a reset
        self._finished = np.zeros(num_envs, bool)
        self._start_times = np.zeros(num_envs)

    def __repr__(self) -> str:
        name = self.spec_id or type(self.env.unwrapped).__name__
        return f"CompiledVectorEnv({name}, num_envs={self.num_envs})"

    @property
    def devices(self) -> list[Any]:
        """The devices the environments are spread over."""
        return jax.devices()[:1] if self._mesh is None else list(self._mesh.devices)

    @property
    def state(self) -> VectorState:
        """The state of all environments; see `snapshot`.

        Raises:
            WrongCallError: before the first reset.
        """
        if self._state is None:
            raise WrongCallError("there is no state before reset(); call reset() once first.")
        return self._state

    def snapshot(self) -> VectorSnapshot:
        """The state of all environments as a value, for `restore` and `fork`.

        Raises:
            WrongCallError: before the first reset.

        Example:
            >>> import kiloworlds as kw
            >>> envs = kw.make("CartPole-v1", num_envs=4)
            >>> observation, _ = envs.reset(seed=0)
            >>> before = envs.snapshot()
            >>> first, *_ = envs.step([0, 0, 1, 1])
            >>> _ = envs.restore(before)
            >>> again, *_ = envs.step([0, 0, 1, 1])
            >>> bool((first == again).all())
            True
        """
        self._check_open("snapshot")
        return VectorSnapshot(self.state, self._observation)

    def restore(self, snapshot: VectorSnapshot) -> tuple[PyTree, dict[str, Any]]:
        """Puts all environments back to where they were, with their parameters.

        Args:
            snapshot: of this vector, or of another one of the same environment and as many of them.

        Returns:
            Observations and infos, as `reset` gives them; of a start there are none.

        Raises:
            InvalidValueError: it is of other environments, or of another number.
        """
        self._check_open("restore")
        shapes = jax.eval_shape(self.functions.init, fast_key(0))
        wanted, given = (_shapes(tree) for tree in (shapes, tuple(snapshot)))
        if wanted != given:
            raise InvalidValueError(
                f"restore() got a snapshot of {snapshot.num_envs} environments, which are not those of "
                f"{self}; take() picks some of them, and fork() makes a vector for them."
                if snapshot.num_envs != self.num_envs
                else f"restore() got a snapshot of other environments than those of {self}."
            )
        state, self._observation = put_environments(tuple(snapshot), self._mesh)
        self._state, self._was_reset = state, True
        self._finished = np.array(state.finished)
        self._start_times[:] = time.perf_counter()
        info, self._masks = self._look(state)
        self._tells_of_starts = bool(info)
        return self._give(self._observation), self._mask_infos()

    def fork(self, indices: Sequence[int] | None = None, seed: int | None = None) -> Self:
        """Another vector whose environments start where some of these are.

        Args:
            indices: which, in that order; one may be there many times. All if not given.
            seed: gives each random numbers of its own; without one they are those here.

        Example:
            >>> import kiloworlds as kw
            >>> envs = kw.make("CartPole-v1", num_envs=4)
            >>> _ = envs.reset(seed=0)
            >>> ways = envs.fork([2] * 16, seed=1)  # sixteen futures of one state
            >>> ways.num_envs
            16
        """
        snapshot = self.snapshot()
        if indices is not None:
            snapshot = snapshot.take(indices)
        if seed is not None:
            snapshot = snapshot.with_seed(seed)
        environment = self.functions.with_parameters(snapshot.state.parameters)
        options = self._fork_options()
        other = type(self)(environment, snapshot.num_envs, reference=self._reference, **options)
        other.restore(snapshot)
        return other

    def _fork_options(self) -> dict[str, Any]:
        """What another vector like this one is made with."""
        return {
            "autoreset_mode": self.autoreset_mode,
            "output": self._output,
            "episode_statistics": self._episode_statistics,
            "spec_id": self.spec_id,
        }

    def functional(self) -> tuple[InitFunction, StepFunction]:
        """The pure functions beneath this vector, for use inside `jax.jit` and `jax.lax.scan`.

        Returns:
            `init(key) -> (state, observation)` and `step(state, actions) -> (state, VectorStep)`,
            both batched over `num_envs` and with this vector's autoreset mode.

        Example:
            >>> import jax, kiloworlds as kw
            >>> init, step = kw.make("CartPole-v1", num_envs=4).functional()
            >>> state, observation = init(jax.random.key(0))
            >>> state, result = jax.jit(step)(state, jax.numpy.ones(4, int))
            >>> result.reward.shape
            (4,)
        """
        return self.functions.init, self.functions.step

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[PyTree, dict[str, Any]]:
        """Starts all environments over, or those in `options["reset_mask"]` (boolean `[N]`).

        Args:
            seed: an int s seeds environment i with s + i; a list gives one each. Without a seed
                the environments go on drawing from where they are.
            options: only "reset_mask" is known.

        Returns:
            Observations `[N, ...]` and infos.
        """
        self._check_open("reset")
        mask, options = self._check_reset(seed, options)
        if options:
            raise InvalidValueError(
                f"unknown reset options {sorted(options)}; compiled environments know only "
                "'reset_mask'. Starting ranges are parameters of the environment."
            )
        if mask is None and (seed is not None or not self._was_reset):
            self._restart(seed)
            mask = np.ones(self.num_envs, bool)
        else:
            mask = np.ones(self.num_envs, bool) if mask is None else mask
            self._state, self._observation = self._reset_where(
                self.state, jnp.asarray(mask), self._observation
            )
        self._was_reset = True
        self._finished[mask] = False
        self._start_times[mask] = time.perf_counter()
        info, self._masks = self._look(self.state)
        self._tells_of_starts = bool(info)
        return self._give(self._observation), with_masks(
            info, mask, self._give
        ) | self._mask_infos()

    def _restart(self, seed: Any) -> None:
        if seed is not None:
            seeds = expand_seeds(seed, self.num_envs)
        elif self._first_seed is not None:
            seeds = self._first_seed
        else:
            drawn = int(np.random.SeedSequence().generate_state(1)[0])
            seeds = expand_seeds(drawn, self.num_envs)
        self._state, self._observation = self._init(
            jnp.asarray(seeds, jnp.uint32), self.functions.parameters
        )

    def step(self, actions: Any) -> tuple[PyTree, Any, Any, Any, dict[str, Any]]:
        """Steps all environments with `actions` `[N, ...]`.

        Returns:
            Observations, rewards (float32), terminated, truncated, infos, by the conventions of
            `gymnasium.vector` for this vector's autoreset mode.
        """
        self._check_steppable()
        actions = self._check_actions(actions)
        if self.autoreset_mode == AutoresetMode.DISABLED and self._finished.any():
            raise self._needs_reset(int(np.argmax(self._finished)))
        self._state, outcome = self._step(self.state, actions)
        step, self._masks = outcome.step, outcome.masks
        self._observation = step.observation
        self._finished = np.array(step.finished)
        infos = self._infos(step)
        return (
            self._give(step.observation),
            self._give(step.reward),
            self._give(outcome.terminated),
            self._give(outcome.truncated),
            infos,
        )

    def _advance(self, state: VectorState, actions: PyTree) -> tuple[VectorState, Outcome]:
        """The compiled program of a step."""
        state, step = self.functions.step(state, actions)
        return state, Outcome(step, step.terminated, step.truncated, {})

    def _masks_in(self, state: VectorState) -> dict[str, PyTree]:
        """Infos `[N, ...]` that reset and step always give, by compiled code; of one agent none."""
        return {}

    def _mask_infos(self) -> dict[str, Any]:
        return with_masks(self._masks, np.ones(self.num_envs, bool), self._give)

    def _give(self, tree: PyTree) -> PyTree:
        return tree if self._output == "jax" else jax.tree.map(np.array, tree)

    def _infos(self, step: VectorStep) -> dict[str, Any]:
        finished = self._finished
        told = np.ones(self.num_envs, bool)
        if step.info and not self._tells_of_starts:
            same_step = self.autoreset_mode == AutoresetMode.SAME_STEP
            told = ~(finished if same_step else np.asarray(step.was_reset))
        infos = with_masks(step.info, told, self._give) | self._mask_infos()
        if not finished.any():
            return infos
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            infos["final_obs"] = self._final_observations(step, finished)
            infos["_final_obs"] = finished.copy()
            infos["final_info"] = with_masks(step.final_info, finished, self._give)
            infos["_final_info"] = finished.copy()
        if self._episode_statistics:
            now = time.perf_counter()
            seconds = now - self._start_times
            infos |= episode_infos(
                finished,
                np.asarray(step.episode_return),
                np.asarray(step.episode_length),
                seconds,
            )
            self._start_times[finished] = now
        return infos

    def _final_observations(self, step: VectorStep, finished: np.ndarray) -> np.ndarray:
        """An object array `[N]`: the last observation where an episode ended, else None."""
        leaves, structure = jax.tree.flatten(step.final_observation)
        indices = np.nonzero(finished)[0]
        is_array = jax.tree_util.treedef_is_leaf(structure)
        rows = zip(*(np.asarray(leaf)[indices] for leaf in leaves), strict=True)
        final = np.full(self.num_envs, None, dtype=object)
        for index, row in zip(indices.tolist(), rows, strict=True):
            final[index] = row[0] if is_array else structure.unflatten(row)
        return final

    def state_of(self, index: int) -> PyTree:
        """The state of one environment."""
        return jax.tree.map(lambda leaf: leaf[index], self.state.environments)

    def environment(self, index: int) -> Environment:
        """One environment with its own parameters."""
        # A state that was restored brings its own.
        of_all = self.functions.parameters if self._state is None else self._state.parameters
        parameters = jax.tree.map(lambda leaf: leaf[index], of_all)
        return self.functions.with_parameters(parameters)

    def render(self, env_ids: Sequence[int] | None = None) -> tuple[np.ndarray, ...] | None:
        """Pictures of all environments, or of some.

        Args:
            env_ids: `[B]`, which, in that order.

        Returns:
            One uint8 RGB array `[height, width, 3]` for each; None if the environment has no picture.

        Raises:
            InvalidValueError: environments that are not there, or named twice.
            WrongCallError: before the first reset.

        Example:
            >>> import kiloworlds as kw
            >>> envs = kw.make("CartPole-v1", num_envs=64)
            >>> _ = envs.reset(seed=0)
            >>> len(envs.render()), envs.render(env_ids=[5])[0].shape
            (64, (400, 600, 3))
        """
        self._check_open("render")
        rows = range(self.num_envs) if env_ids is None else self._check_rows(env_ids).tolist()
        # Drawing reads numbers one by one: from the host, where all come at once, not from the device.
        parameters, states = jax.device_get((self.state.parameters, self.state.environments))

        def draw(row: int) -> np.ndarray | None:
            own, state = jax.tree.map(lambda leaf: leaf[row], (parameters, states))
            return self.functions.with_parameters(own).render(state)

        frames = [draw(row) for row in rows]
        return None if any(frame is None for frame in frames) else tuple(frames)  # type: ignore[return-value]

    def describe(self, index: int = 0) -> str | None:
        """One environment as text for a terminal; None if it offers none."""
        self._check_open("describe")
        return self.environment(index).describe(self.state_of(index))


def _shapes(tree: PyTree) -> tuple[Any, list[Any]]:
    """What tells whether a state is of the same environments: its structure, shapes and types."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
