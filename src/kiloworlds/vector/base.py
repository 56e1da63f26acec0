"""What every executor shares: the gymnasium.vector interface, its checks and its conventions."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from kiloworlds.core.checks import require_count
from kiloworlds.core.devices import available_cores
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.actions import action_check

_MODES = {mode.name.lower(): mode for mode in AutoresetMode}


def parse_autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """Accepts Gymnasium's enumeration or its names ("same_step", "SameStep", ...).

    Raises:
        InvalidValueError: for anything else.
    """
    if isinstance(mode, AutoresetMode):
        return mode
    name = str(mode).lower().replace("-", "_")
    for known, value in _MODES.items():
        if name in (known, known.replace("_", "")):
            return value
    raise InvalidValueError(
        f"autoreset_mode={mode!r} is not one of {', '.join(map(repr, _MODES))} "
        "(or gymnasium.vector.AutoresetMode)."
    )


def choose_workers(num_workers: Any, num_envs: int) -> int:
    """Returns `num_workers` if it is a number from 1 to `num_envs`; for None one per available core,
    never more than `num_envs`."""
    if num_workers is None:
        return min(available_cores(), num_envs)
    return require_count("num_workers", num_workers, num_envs, "num_envs")


def choose_batch_size(batch_size: Any, num_envs: int) -> int:
    """Returns `batch_size` if it is a number from 1 to `num_envs`; `num_envs` for None."""
    if batch_size is None:
        return num_envs
    return require_count("batch_size", batch_size, num_envs, "num_envs")


def expand_seeds(seed: Any, num_envs: int) -> list[int]:
    """One seed per environment: an int s gives s, s + 1, ...; a sequence must have `num_envs`.

    Raises:
        InvalidValueError: negative, fractional or beyond 2^32 - 1, or a sequence of wrong length.
    """
    if hasattr(seed, "tolist"):  # arrays of NumPy, JAX, ...
        seed = seed.tolist()
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        if len(seed) != num_envs:
            raise InvalidValueError(
                f"seed has {len(seed)} entries for {num_envs} environments; give {num_envs} or one "
                "integer."
            )
        seeds = list(seed)
    else:
        seeds = [seed]
    for value in seeds:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InvalidValueError(f"seed={value!r} must be an integer between 0 and 2^32 - 1.")
        if not 0 <= value < 2**32:
            nearest = 0 if value < 0 else 2**32 - 1
            raise InvalidValueError(
                f"seed={value} lies outside 0 to 2^32 - 1; the nearest valid seed is {nearest}."
            )
    if len(seeds) == 1 and num_envs > 1:
        return [(int(seeds[0]) + index) % 2**32 for index in range(num_envs)]
    return [int(value) for value in seeds]


def make_env_list(make_env: Any, num_envs: int) -> list[Callable[[], gymnasium.Env]]:
    """One function per environment, from one for all or a sequence of `num_envs`.

    Raises:
        InvalidValueError: another number of functions.
    """
    make_envs: list[Any] = [make_env] * num_envs if callable(make_env) else list(make_env)
    if len(make_envs) != num_envs:
        raise InvalidValueError(
            f"{len(make_envs)} functions for num_envs={num_envs}; give one for each, or one for all."
        )
    return make_envs


class VectorEnv(gymnasium.vector.VectorEnv):
    """Base of kiloworlds' executors: a `gymnasium.vector.VectorEnv` that checks what it is given.

    In a `with` statement it closes itself at the end.

    Attributes:
        backend: the executor's name, such as "compiled".
    """

    backend: str = "abstract"

    def _describe(
        self,
        num_envs: int,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        autoreset_mode: AutoresetMode,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Sets the attributes that gymnasium.vector promises."""
        self.num_envs = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._action_check = action_check(action_space)
        self.autoreset_mode = autoreset_mode
        self.metadata = {**(metadata or {}), "autoreset_mode": autoreset_mode}
        self.closed = False
        self._was_reset = False

    def render(self, env_ids: Any = None) -> tuple[Any, ...] | None:
        """What all environments look like, or those in `env_ids` `[B]`, in that order."""
        raise InvalidValueError(f"{self} draws no pictures.")

    @property
    def saves_state(self) -> bool:
        """Whether `get_state` and `set_state` are there: whether the simulator can save its state."""
        return False

    def get_state(self) -> dict[str, np.ndarray]:
        """All that determines how the environments go on, random streams included.

        Returns:
            Arrays `[N, ...]` by name, one row for each environment.

        Raises:
            InvalidValueError: the simulator cannot save its state.
            StateUnavailableError: it cannot just now, as a worker died, or `get_state` of an
                environment failed.
            WrongCallError: before the first reset, or while results are pending.
        """
        self._check_state_call("get_state")
        self._check_reset_before("get_state")
        return self._get_state()

    def set_state(self, state: Mapping[str, np.ndarray], env_ids: Any = None) -> Any:
        """Puts all environments to where some were when `get_state` gave `state`.

        Args:
            state: of this vector, or of another one of such environments.
            env_ids: `[N]`, which environment of `state` each goes on from; one may be there many times.
                Without them each goes on from its own row.

        Returns:
            The observations of all environments.

        Raises:
            InvalidValueError: the simulator cannot save its state, or it is of other environments, or
                of another number.
            WrongCallError: while results are pending.
        """
        self._check_state_call("set_state")
        if not isinstance(state, Mapping) or not state or not all(map(_has_rows, state.values())):
            raise InvalidValueError(
                "set_state() takes what get_state() gave: arrays by name, a row for each environment."
            )
        if len({len(array) for array in state.values()}) > 1:
            lengths = {name: len(array) for name, array in state.items()}
            raise InvalidValueError(f"set_state() got arrays of different lengths: {lengths}.")
        if "observations" not in {name.partition("/")[0] for name in state}:
            raise InvalidValueError(
                "set_state() takes what get_state() gave; this holds no observations."
            )
        stored = len(next(iter(state.values())))
        if env_ids is None and stored != self.num_envs:
            raise InvalidValueError(
                f"set_state() got states of {stored} environments for num_envs={self.num_envs}; "
                "env_ids says which of them each goes on from."
            )
        rows = np.arange(stored) if env_ids is None else self._check_origins(env_ids, stored)
        return self._set_state({name: array[rows] for name, array in state.items()})

    def _check_origins(self, env_ids: Any, stored: int) -> np.ndarray:
        """`env_ids` of `set_state` as numbers `[N]`, or InvalidValueError."""
        try:
            rows = np.asarray(env_ids)
        except ValueError:  # ragged
            rows = np.array(None)
        if rows.shape != (self.num_envs,) or rows.dtype.kind not in "iu":
            raise InvalidValueError(
                f"env_ids={reprlib.repr(env_ids)} must be {self.num_envs} whole numbers: for each "
                f"environment, from which of the state's {stored} it goes on."
            )
        wrong = rows[(rows < 0) | (rows >= stored)]
        if wrong.size:
            raise InvalidValueError(
                f"env_ids holds {wrong[0]}; the state has environments 0 to {stored - 1}; the nearest "
                f"valid value is {np.clip(wrong[0], 0, stored - 1)}."
            )
        return rows

    def _get_state(self) -> dict[str, np.ndarray]:
        """Arrays `[N, ...]` of their own; those of observations are called "observations"."""
        raise self._no_state()

    def _set_state(self, state: Mapping[str, np.ndarray]) -> Any:
        """The opposite; returns the observations."""
        raise self._no_state()

    def _no_state(self) -> InvalidValueError:
        return InvalidValueError(f"the environments of {self} cannot save their states.")

    def _check_state_call(self, call: str) -> None:
        if not self.saves_state:
            raise self._no_state()
        self._check_nothing_pending(call)

    def _check_nothing_pending(self, call: str) -> None:
        """Raises WrongCallError while results are to come, or after `close`."""
        self._check_open(call)

    def _check_reset_before(self, call: str) -> None:
        if not self._was_reset:
            raise WrongCallError(f"{call}() before reset(); call reset() once first.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_open(self, call: str) -> None:
        if self.closed:
            raise WrongCallError(f"{call}() after close(); make a new vector environment.")

    def _check_steppable(self) -> None:
        self._check_open("step")
        self._check_reset_before("step")

    def _needs_reset(self, index: int) -> WrongCallError:
        return WrongCallError(
            f"environment {index} has ended and autoreset is disabled; call "
            "reset(options={'reset_mask': mask}) with its mask first."
        )

    def _check_actions(
        self, actions: Any, count: int | None = None, env_ids: np.ndarray | None = None
    ) -> Any:
        """Returns `actions` as executors write them, or raises InvalidValueError.

        Args:
            count: for how many environments; all if None.
            env_ids: for which, where they are not those from 0 on.
        """
        return self._action_check(actions, self.num_envs if count is None else count, env_ids)

    def _check_rows(self, env_ids: Any) -> np.ndarray:
        """Returns `env_ids` as numbers of environments `[B]`, or raises InvalidValueError."""
        rows = np.asarray(env_ids)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise InvalidValueError(f"env_ids must be environment numbers [B], not {env_ids!r}.")
        rows = rows.astype(int)
        if rows.min() < 0 or rows.max() >= self.num_envs:
            wrong = rows[(rows < 0) | (rows >= self.num_envs)][0]
            raise InvalidValueError(f"env_ids holds {wrong}; there are 0 to {self.num_envs - 1}.")
        if len(set(rows.tolist())) < len(rows):
            raise InvalidValueError("env_ids names an environment twice.")
        return rows

    def _check_reset(self, seed: Any, options: Any) -> tuple[np.ndarray | None, dict[str, Any]]:
        """The mask among the options of `reset` (None: all environments), and the other options.

        Raises:
            InvalidValueError: options that are no dict, a wrong mask, or a mask and a seed.
            WrongCallError: a mask before the first full reset.
        """
        self._check_open("reset")
        if options is not None and not isinstance(options, Mapping):
            raise InvalidValueError(
                f"options={reprlib.repr(options)} must be a dict, such as {{'reset_mask': mask}}."
            )
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is None:
            return None, options
        if not self._was_reset:
            raise WrongCallError("reset_mask before the first full reset; call reset() once first.")
        mask = self._check_reset_mask(mask)
        if seed is not None:
            raise InvalidValueError(
                "seed together with reset_mask is not supported; seed a full reset instead."
            )
        return mask, options

    def _check_reset_mask(self, mask: Any) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise InvalidValueError(
                "options['reset_mask'] must be a boolean numpy array, got "
                f"{getattr(mask, 'dtype', type(mask).__name__)}."
            )
        if mask.shape != (self.num_envs,):
            raise InvalidValueError(
                f"options['reset_mask'] has shape {mask.shape}; it must be ({self.num_envs},)."
            )
        if not mask.any():
            raise InvalidValueError("options['reset_mask'] selects no environment.")
        return mask


def _has_rows(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0
