"""Step-by-step equality of a compiled environment with the slower one it reproduces."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import jax
import numpy as np
from jaxtyping import PyTree

from kiloworlds.core.environment import Environment
from kiloworlds.core.random import fast_key
from kiloworlds.core.time_limit import TimeLimitState

SetState = Callable[[Any, PyTree], PyTree | None]
"""Puts a state of the fast environment (leaves are numpy) into the unwrapped slow one.

May return the observation the slow environment makes of that state, to be compared as well.
"""


class ParityError(AssertionError):
    """Where the two environments first differ, and by how much.

    `field` names what differs (`"observation[2]"`, `"info['lives']"`); `step` counts from 1 in its
    episode, 0 being the reset.
    """

    def __init__(
        self,
        field: str,
        episode: int,
        step: int,
        action: Any,
        fast: Any,
        slow: Any,
        difference: float,
    ):
        self.field, self.episode, self.step, self.action = field, episode, step, action
        self.fast, self.slow, self.difference = fast, slow, difference
        super().__init__(
            f"{field} differs in episode {episode}, step {step}, action {action}: "
            f"fast {fast}, slow {slow}, difference {difference:.3g}."
        )


@dataclass
class ParityReport:
    """What was compared: counts, and the largest difference seen in each field."""

    episodes: int = 0
    steps: int = 0
    terminated: int = 0
    truncated: int = 0
    largest_difference: dict[str, float] = field(default_factory=dict)


def parity(
    fast: Environment,
    slow: gymnasium.Env | Callable[[], gymnasium.Env],
    *,
    set_state: SetState,
    steps: int = 1000,
    episodes: int = 10,
    seed: int = 0,
    actions: Callable[[PyTree, int], Any] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    resynchronise: bool = True,
) -> ParityReport:
    """Steps both environments from equal states with equal actions and compares all they return.

    Spaces must be equal; observation, reward and info agree to `atol + rtol |slow|`, and whole
    numbers and the flags `terminated` and `truncated` exactly. An episode ends with either flag.

    Args:
        fast: the environment under test, with its time limit if `slow` has one.
        slow: the environment it reproduces, or a function that makes it.
        set_state: see `SetState`; gets the state inside the time limit.
        steps: the most steps of one episode.
        episodes: how many episodes, each from another reset of `fast`.
        seed: of the resets, the sampled actions and the randomness of `fast`.
        actions: a policy `(observation, steps taken) -> action`; sampled uniformly if None.
        rtol, atol: relative and absolute tolerance of floating-point values.
        resynchronise: copy the fast state into `slow` before every step, so that rounding cannot
            grow along a chaotic path; if False both run freely from the first state on.

    Returns:
        How much was compared, and the largest differences seen.

    Raises:
        ParityError: an AssertionError that names the first difference.

    Example:
        >>> import gymnasium
        >>> import numpy as np
        >>> from kiloworlds import make_environment
        >>> def set_state(slow, state):
        ...     slow.state = np.array(state, np.float64)
        >>> slow = gymnasium.make("CartPole-v1")
        >>> report = parity(make_environment("CartPole-v1"), slow, set_state=set_state, episodes=2)
        >>> report.episodes, report.terminated
        (2, 2)
    """
    reference = slow if isinstance(slow, gymnasium.Env) else slow()
    try:
        _compare_spaces(fast, reference)
        comparison = _Comparison(rtol, atol)
        # Keys are derived inside the compiled functions: outside they would cost more than a step.
        action_space, root = fast.action_space, fast_key(seed)
        action_types = jax.eval_shape(action_space.sample, root)

        @jax.jit
        def reset(episode):
            return fast.reset(jax.random.fold_in(jax.random.fold_in(root, episode), 0))

        @jax.jit
        def sample(episode, taken):
            key = jax.random.fold_in(jax.random.fold_in(root, episode), 2 * taken + 1)
            return action_space.sample(key)

        @jax.jit
        def step(episode, taken, state, action):
            key = jax.random.fold_in(jax.random.fold_in(root, episode), 2 * taken + 2)
            return fast.step(key, state, action)

        for episode in range(episodes):
            state, observation = jax.device_get(reset(episode))
            reference.reset(seed=seed + episode)
            comparison.start_episode(episode)
            seen = set_state(reference.unwrapped, _inner(state))
            if seen is not None:
                comparison.check("observation", observation, seen)
            for taken in range(steps):
                choice = sample(episode, taken) if actions is None else actions(observation, taken)
                action = jax.tree.map(
                    lambda kind, value: np.asarray(value, kind.dtype), action_types, choice
                )
                if resynchronise and taken > 0:
                    set_state(reference.unwrapped, _inner(state))
                state, result = jax.device_get(step(episode, taken, state, action))
                observation = result.observation
                action = jax.tree.map(_to_python, action)
                comparison.start_step(action)
                if comparison.check_step(result, reference.step(action)):
                    break
        return comparison.report
    finally:
        if reference is not slow:
            reference.close()


def _inner(state: PyTree) -> PyTree:
    while isinstance(state, TimeLimitState):
        state = state.inner
    return state


def _to_python(leaf: np.ndarray) -> Any:
    """Discrete actions as `int`, which every Gymnasium environment accepts."""
    return leaf if leaf.ndim else leaf.item()


def _compare_spaces(fast: Environment, slow: gymnasium.Env) -> None:
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(fast, name).to_gymnasium(), getattr(slow, name)
        if ours != theirs:
            raise ParityError(name, 0, 0, None, ours, theirs, float("nan"))


def _named_leaves(name: str, tree: PyTree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {name + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


class _Comparison:
    def __init__(self, rtol: float, atol: float):
        self.report = ParityReport()
        self._rtol, self._atol = rtol, atol
        self._step = 0
        self._action: Any = None

    def start_episode(self, episode: int) -> None:
        self._episode, self._step, self._action = episode, 0, None
        self.report.episodes += 1

    def start_step(self, action: Any) -> None:
        self._step += 1
        self._action = action
        self.report.steps += 1

    def check_step(self, fast: Any, slow: tuple) -> bool:
        """Compares one step's results; returns whether the episode ended."""
        observation, reward, terminated, truncated, info = slow
        self.check("observation", fast.observation, observation)
        self.check("reward", fast.reward, reward)
        self.check("terminated", fast.terminated, terminated)
        self.check("truncated", fast.truncated, truncated)
        self.check("info", fast.info, info)
        self.report.terminated += bool(terminated)
        self.report.truncated += bool(truncated)
        return bool(terminated or truncated)

    def check(self, name: str, fast: PyTree, slow: PyTree) -> None:
        ours, theirs = _named_leaves(name, fast), _named_leaves(name, slow)
        if ours.keys() != theirs.keys():
            odd = sorted(ours.keys() ^ theirs.keys())
            self._fail(f"the structure of {name}, at {odd},", sorted(ours), sorted(theirs))
        for field_name, leaf in ours.items():
            self._check_leaf(field_name, leaf, theirs[field_name])

    def _check_leaf(self, name: str, fast: np.ndarray, slow: np.ndarray) -> None:
        if fast.shape != slow.shape:
            self._fail(f"the shape of {name}", fast.shape, slow.shape)
        if fast.dtype.kind not in "biuf" or slow.dtype.kind not in "biuf":
            if not np.array_equal(fast, slow):
                self._fail(name, fast, slow)
            return
        exact = fast.dtype.kind != "f" and slow.dtype.kind != "f"
        ours, theirs = fast.astype(np.float64), slow.astype(np.float64)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        # Equal entries first: infinity less infinity would be NaN.
        difference = np.abs(np.where(same, 0.0, ours) - np.where(same, 0.0, theirs))
        allowed = 0.0 if exact else self._atol + self._rtol * np.abs(theirs)
        wrong = ~same & ~(difference <= allowed)  # a NaN difference is no agreement
        if wrong.any():
            # The worst entry; NaN counts as infinitely wrong.
            index = np.unravel_index(
                np.argmax(np.where(wrong, np.nan_to_num(difference, nan=np.inf), -1)), fast.shape
            )
            where = "".join(f"[{i}]" for i in index)
            self._fail(name + where, fast[index], slow[index], float(difference[index]))
        largest = self.report.largest_difference
        largest[name] = max(largest.get(name, 0.0), float(difference.max(initial=0.0)))

    def _fail(self, name: str, fast: Any, slow: Any, difference: float = float("nan")) -> None:
        raise ParityError(name, self._episode, self._step, self._action, fast, slow, difference)
