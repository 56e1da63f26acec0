"""The executor for Atari games: the Arcade Learning Environment's own threads, without Python."""

import reprlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from kiloworlds.core.checks import require_count, require_flag
from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import (
    InvalidValueError,
    MissingDependencyError,
    WrongCallError,
    unknown_name,
)
from kiloworlds.vector.base import VectorEnv, choose_batch_size, expand_seeds, parse_autoreset_mode
from kiloworlds.vector.infos import EpisodeStatistics, with_masks
from kiloworlds.vector.pixels import PixelOptions

_INFO_NAMES = ("lives", "frame_number", "episode_frame_number")


class ALEExecutor(VectorEnv):
    """Steps Atari games in threads of `ale_py.vector_env.AtariVectorEnv` (C++).

    Observations are uint8 `[frame_stack, size, size]`, with a last axis of 3 for colours; every result
    is an array of its own. `reset` and `step` drive all games together. `async_reset`, `send` and
    `recv` drive them apart: `recv` returns the `batch_size` that finish first.

    `infos["episode"]` reports whole games with unclipped rewards, whatever `life_loss` and
    `clip_rewards` say.

    Args:
        env_id: the game, such as "ALE/Pong-v5".
        num_envs: how many.
        pixels: the preprocessing.
        num_workers: threads; one per available core if None, never more than `batch_size`.
        batch_size: how many results `recv` waits for; `num_envs` if None. With fewer, `reset` and
            `step` cannot be used.
        seed: the seed of the first `reset` where that gives none. Seeds that differ by 2^31 are the
            same to the emulator.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.
        episode_statistics: see `CompiledVectorEnv`.
        copy: whether final observations are arrays of their own. False saves the copy: they are then
            views that keep the whole batch they came with.

    Raises:
        UnknownNameError: no game of that id.
        InvalidValueError: an id that is no ALE/* game, or a value out of range.
        MissingDependencyError: ale-py is not installed.

    Example:
        >>> envs = ALEExecutor("ALE/Pong-v5", 2)  # doctest: +SKIP
        >>> envs.reset(seed=0)[0].shape  # doctest: +SKIP
        (2, 4, 84, 84)
    """

    backend = "native"

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        pixels: PixelOptions | None = None,
        num_workers: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        episode_statistics: bool = True,
        copy: bool = True,
    ):
        num_envs = require_count("num_envs", num_envs)
        mode = parse_autoreset_mode(autoreset_mode)
        pixels = PixelOptions() if pixels is None else pixels
        if pixels.life_loss and mode != AutoresetMode.SAME_STEP:
            raise InvalidValueError(
                f"life_loss=True with autoreset_mode={mode.name.lower()!r}: the native backend goes on "
                "after a lost life only with 'same_step'; use that, or backend='process'."
            )
        self.batch_size = choose_batch_size(batch_size, num_envs)
        self.num_workers = min(available_cores(), self.batch_size)
        if num_workers is not None:
            self.num_workers = require_count(
                "num_workers", num_workers, self.batch_size, "batch_size"
            )
        self._first_seed = None if seed is None else expand_seeds(seed, num_envs)
        spec = _find_game(env_id)
        from ale_py.vector_env import AtariVectorEnv

        self._vector: Any = AtariVectorEnv(
            spec.kwargs["game"],
            num_envs,
            batch_size=self.batch_size,
            num_threads=self.num_workers,
            max_num_frames_per_episode=spec.kwargs["max_num_frames_per_episode"],
            # Disabled: next-step autoreset whose next step never comes.
            autoreset_mode=AutoresetMode.SAME_STEP
            if mode == AutoresetMode.SAME_STEP
            else AutoresetMode.NEXT_STEP,
            img_height=pixels.size,
            img_width=pixels.size,
            grayscale=pixels.gray_scale,
            stack_num=pixels.frame_stack,
            frameskip=int(pixels.frame_skip),
            maxpool=pixels.max_pool,
            noop_max=pixels.noop_max,
            use_fire_reset=pixels.fire_reset,
            repeat_action_probability=float(pixels.sticky_actions),
            full_action_space=pixels.full_action_space,
            # Both are done here: the statistics need the game's own rewards, and the simulator starts
            # a new game where an episode ends.
            reward_clipping=False,
            episodic_life=False,
        )
        self._describe(
            num_envs, self._vector.single_observation_space, self._vector.single_action_space, mode
        )
        self.spec, self.pixels, self._copy = spec, pixels, copy
        require_flag("episode_statistics", episode_statistics)
        self._reports_episodes = episode_statistics
        self._episodes = EpisodeStatistics(num_envs)
        self._lives = np.zeros(num_envs, int)
        # The next result is the first observation of a game.
        self._starting = np.zeros(num_envs, bool)
        self._finished = np.zeros(num_envs, bool)
        self._first_batch: tuple[np.ndarray, dict[str, Any]] | None = None
        self._in_flight = 0
        # Whose results the last `recv` gave: the simulator takes their actions next.
        self._received: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"ALEExecutor({self.spec.id if self.spec else '?'}, num_envs={self.num_envs})"

    def reset(
        self,
        *,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts all games over, or those in `options["reset_mask"]` (boolean `[N]`)."""
        mask, others = self._check_reset(seed, options)
        self._check_synchronous("reset")
        if others:
            raise InvalidValueError(
                f"options={reprlib.repr(others)}: Atari games take no options but 'reset_mask'."
            )
        if mask is None:
            mask = np.ones(self.num_envs, bool)
            observations, infos = self._vector.reset(seed=self._seeds(seed))
        else:
            observations, infos = self._vector.reset(options={"reset_mask": mask})
        self._begin(mask)
        self._starting[mask] = False
        self._lives[mask] = infos["lives"][mask]
        return observations, self._infos(infos, mask)

    def _seeds(self, seed: Any) -> np.ndarray | None:
        if seed is None and not self._was_reset:
            # Unseeded, the emulator takes the seconds of the clock: the same for all games.
            seed = self._first_seed or np.random.SeedSequence().generate_state(self.num_envs)
        if seed is None:
            return None
        return np.asarray(expand_seeds(seed, self.num_envs)) % 2**31

    def _begin(self, which: np.ndarray) -> None:
        self._was_reset = True
        self._starting[which], self._finished[which] = True, False
        self._lives[which] = 0
        self._episodes.begin(which)

    def _check_synchronous(self, call: str) -> None:
        if self.batch_size < self.num_envs:
            raise WrongCallError(
                f"{call}() with batch_size={self.batch_size} for {self.num_envs} environments; use "
                "async_reset(), recv() and send(), or leave batch_size out."
            )
        self._check_nothing_in_flight(call)

    def _check_nothing_in_flight(self, call: str) -> None:
        if self._in_flight:
            raise WrongCallError(f"{call}() with {self._in_flight} results pending; recv() them.")

    def step(
        self, actions: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all games; see `gymnasium.vector.VectorEnv.step`."""
        self._check_steppable()
        self._check_synchronous("step")
        actions = self._check_actions(actions)
        if self.autoreset_mode == AutoresetMode.DISABLED and self._finished.any():
            raise self._needs_reset(int(np.argmax(self._finished)))
        return self._results(*self._vector.step(np.asarray(actions, np.int32)))

    def async_reset(self, seed: int | list[int] | None = None) -> None:
        """Starts all games over; `recv` then gives their first observations."""
        self._check_open("async_reset")
        self._check_nothing_in_flight("async_reset")
        self._first_batch = self._vector.reset(seed=self._seeds(seed))
        self._begin(np.ones(self.num_envs, bool))
        self._in_flight = self.num_envs
        self._received = None

    def send(self, actions: Any, env_ids: Any) -> None:
        """Sends actions `[B]` to the games `env_ids` `[B]`, those of the last `recv` in any order.

        Raises:
            InvalidValueError: wrong shapes or numbers, or other games.
            WrongCallError: there is no result to answer.
        """
        self._check_steppable()
        if self._received is None:
            raise WrongCallError("send() without a result to answer; call recv() first.")
        rows = np.asarray(env_ids)
        if rows.ndim != 1 or not np.array_equal(np.sort(rows), np.sort(self._received)):
            raise InvalidValueError(
                f"env_ids={reprlib.repr(rows.tolist())}: the native backend takes the environments of "
                f"the last recv(), {reprlib.repr(self._received.tolist())}, in any order."
            )
        actions = np.asarray(self._check_actions(actions, len(rows), rows), np.int32)
        ended = self._finished[rows]
        if self.autoreset_mode == AutoresetMode.DISABLED and ended.any():
            raise self._needs_reset(int(rows[np.argmax(ended)]))
        by_row = np.zeros(self.num_envs, np.int32)
        by_row[rows] = actions
        self._vector.send(by_row[self._received])
        self._in_flight += len(rows)
        self._received = None

    def recv(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Waits for `batch_size` results; `infos["env_id"]` `[B]` says whose they are.

        Raises:
            WrongCallError: fewer results are pending than `batch_size`, so it would wait for ever; or
                the last ones were not answered by `send`.
        """
        self._check_open("recv")
        if self._received is not None:
            raise WrongCallError("recv() twice; send() actions for the last results first.")
        if self._in_flight < self.batch_size:
            raise WrongCallError(
                f"recv() waits for batch_size={self.batch_size} results, but {self._in_flight} are "
                "pending; call async_reset() or send() first."
            )
        if self._first_batch is not None:
            observations, infos = self._first_batch
            self._first_batch = None
            none = np.zeros(self.batch_size, bool)
            batch: Any = (observations, none.astype(np.int32), none, none.copy(), infos)
        else:
            batch = self._vector.recv()
        rows = batch[-1]["env_id"]
        self._in_flight -= len(rows)
        self._received = rows
        *results, infos = self._results(*batch)
        return *results, {**infos, "env_id": rows.astype(int)}  # type: ignore[return-value]

    def _results(
        self,
        observations: np.ndarray,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        ale_infos: dict[str, Any],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """What the simulator gives for a batch, in the conventions of this library."""
        rows, lives = ale_infos["env_id"], ale_infos["lives"]
        rewards = rewards.astype(float)
        starting = self._starting[rows]
        self._episodes.begin(rows[starting])
        self._episodes.returns[rows] += rewards
        self._episodes.lengths[rows] += ~starting
        over = terminated | truncated
        infos = self._infos(ale_infos, np.ones(len(rows), bool))
        if over.any() and self._reports_episodes:
            self._episodes.add_to(infos, over, rows)
        finished = over
        if self.pixels.life_loss:
            # Some games stay at no lives for a few frames before they end.
            lost_life = (lives > 0) & (lives < self._lives[rows]) & ~over
            terminated, finished = terminated | lost_life, over | lost_life
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._episodes.begin(rows[over])
            if finished.any():
                finals = np.full(len(rows), None, dtype=object)
                for position in np.nonzero(finished)[0].tolist():
                    # After a lost life the game goes on from where the episode ended.
                    source = ale_infos["final_obs"] if over[position] else observations
                    finals[position] = source[position].copy() if self._copy else source[position]
                infos |= {"final_obs": finals, "_final_obs": finished.copy()}
        self._starting[rows] = over & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        self._finished[rows], self._lives[rows] = over, lives
        if self.pixels.clip_rewards:
            rewards = np.clip(rewards, -1.0, 1.0)
        return observations, rewards, terminated, truncated, infos

    def _infos(self, ale_infos: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
        named = {name: ale_infos[name] for name in _INFO_NAMES}
        return with_masks(named, mask, lambda value: value.astype(int))

    def render(self, env_ids: Any = None) -> tuple[Any, ...]:
        """Not possible: the simulator gives no frames but its observations.

        Raises:
            WrongCallError: always.
        """
        raise WrongCallError("the native backend renders no frames; use backend='process'.")

    def close_extras(self, **kwargs: Any) -> None:
        self._vector = None  # its destructor ends the threads


def _find_game(env_id: str) -> Any:
    """The registration of an ALE/* id."""
    try:
        import ale_py  # noqa: F401  (registers the games)
        from ale_py.vector_env import AtariVectorEnv  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f'{env_id} needs a simulator that is missing: pip install "kiloworlds[atari]"'
        ) from error
    games = [name for name, spec in gymnasium.registry.items() if spec.namespace == "ALE"]
    if env_id not in games:
        if env_id in gymnasium.registry:
            raise InvalidValueError(
                f"{env_id} is no ALE/* game; the native backend runs only those."
            )
        raise unknown_name("Atari game", env_id, games, "`kiloworlds list`")
    return gymnasium.registry[env_id]
