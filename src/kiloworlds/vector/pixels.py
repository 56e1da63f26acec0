"""Preprocessing of image observations, with the options of the standard Atari protocol."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import (
    AtariPreprocessing,
    ClipReward,
    FrameStackObservation,
    GrayscaleObservation,
    RecordEpisodeStatistics,
    ResizeObservation,
)

from kiloworlds.core.checks import require_flag, require_number
from kiloworlds.core.errors import InvalidValueError, MissingDependencyError, did_you_mean
from kiloworlds.vector.env_state import WRAPPERS

_LEAST = {"size": 1, "frame_stack": 1, "frame_skip": 1, "noop_max": 0}
_MOST_SIZE = 4096
_ATARI_ONLY = (
    "max_pool",
    "noop_max",
    "sticky_actions",
    "life_loss",
    "fire_reset",
    "full_action_space",
)


@dataclass(frozen=True)
class PixelOptions:
    """How image observations are prepared for learning.

    The defaults are those of Mnih et al. (2015), "Human-level control through deep reinforcement
    learning", except for sticky actions and episodes of whole games, which follow Machado et al.
    (2018), "Revisiting the Arcade Learning Environment".

    Raises:
        InvalidValueError: a value out of range.

    Example:
        >>> PixelOptions(size=42, frame_stack=2).observation_shape
        (2, 42, 42)
    """

    size: int = 84
    """Height and width of a frame, in pixels."""
    gray_scale: bool = True
    """Whether frames are grey; otherwise each has a last axis of three colours."""
    frame_stack: int = 4
    """How many of the latest frames an observation holds, the newest last."""
    frame_skip: int = 4
    """Frames for which the simulator repeats an action; rewards are summed over them."""
    max_pool: bool = True
    """Atari: whether a frame is the pixel-wise maximum of the last two skipped over, which undoes the
    console's flicker."""
    noop_max: int = 30
    """Atari: at most so many actions without effect open a game, their number drawn at random."""
    sticky_actions: float = 0.25
    """Atari: probability that the console repeats the last action instead, at every frame."""
    life_loss: bool = False
    """Atari: whether a lost life ends an episode. The game goes on in the next one, and the reported
    episodes are still whole games."""
    fire_reset: bool = True
    """Atari: whether FIRE is pressed at the start of games that have it."""
    clip_rewards: bool = True
    """Whether rewards are clipped to [-1, 1]; the reported returns are not."""
    full_action_space: bool = False
    """Atari: all 18 actions instead of those that have an effect in the game."""

    def __post_init__(self):
        for item in fields(self):
            self._check(item.name, item.default)

    def _check(self, name: str, default: Any) -> None:
        value = getattr(self, name)
        if isinstance(default, bool):
            require_flag(name, value)
            return
        whole = isinstance(default, int)
        high = (_MOST_SIZE if name == "size" else 1000) if whole else 1.0
        require_number(name, value, _LEAST.get(name, 0), high, whole)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`[frame_stack, size, size]`, with a last axis of 3 for colours."""
        return (self.frame_stack, self.size, self.size, *(() if self.gray_scale else (3,)))

    @property
    def hides_episodes(self) -> bool:
        """Whether rewards or ends of episodes differ from those of the game."""
        return self.life_loss or self.clip_rewards

    def for_evaluation(self) -> "PixelOptions":
        """The same pictures, with the game's own rewards and episodes."""
        return replace(self, life_loss=False, clip_rewards=False)


def pixel_options(value: Any) -> PixelOptions:
    """Reads options as users write them.

    Args:
        value: "atari" for the defaults, a mapping of option names to values, or `PixelOptions`.

    Raises:
        InvalidValueError: anything else, an unknown option or a value out of range.

    Example:
        >>> pixel_options({"size": 64, "sticky_actions": 0.0}).size
        64
    """
    if isinstance(value, PixelOptions):
        return value
    if isinstance(value, Mapping):
        names = [item.name for item in fields(PixelOptions)]
        for name in value:
            if name not in names:
                raise InvalidValueError(
                    f"pixels has no option {name!r}; there are {', '.join(names)}."
                    f"{did_you_mean(str(name), names)}"
                )
        return PixelOptions(**value)
    if value == "atari":
        return PixelOptions()
    raise InvalidValueError(
        f"pixels={reprlib.repr(value)} must be 'atari' or options, such as {{'size': 84}}."
    )


def preprocess(
    make_env: Callable[[], gymnasium.Env], options: PixelOptions
) -> Callable[[], gymnasium.Env]:
    """A function that builds an environment with preprocessed image observations.

    Where the options change rewards or ends of episodes, the last step of a whole game reports its
    unclipped return "r", length "l" and seconds "t" as `info["episode"]`.

    Args:
        make_env: builds the environment: one of the Arcade Learning Environment, or any with images
            `[height, width]` or `[height, width, 3]` of uint8 as observations.
        options: see `PixelOptions`.

    Returns:
        The function; its environments have observations uint8 `[frame_stack, size, size]`, with a
        last axis of 3 for colours.

    Raises:
        InvalidValueError: when building: observations that are no images, or options for Atari games
            with another environment.
        MissingDependencyError: when building: OpenCV is not installed.

    Example:
        >>> import gymnasium
        >>> build = preprocess(lambda: gymnasium.make("ALE/Pong-v5"), PixelOptions())
    """

    def build() -> gymnasium.Env:
        _require_opencv()
        env = make_env()
        return _atari(env, options) if _is_atari(env) else _images(env, options)

    return build


def _require_opencv() -> None:
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            'Resizing images needs OpenCV: pip install "kiloworlds[atari]"'
        ) from error


def _is_atari(env: gymnasium.Env) -> bool:
    return hasattr(env.unwrapped, "ale")


def _atari(env: gymnasium.Env, options: PixelOptions) -> gymnasium.Env:
    env = _rebuild_atari(env, options)
    if options.fire_reset and "FIRE" in _action_meanings(env):
        env = FireReset(env)
    preprocessing = AtariPreprocessing if options.max_pool else _UnpooledPreprocessing
    env = preprocessing(
        env,
        noop_max=options.noop_max,
        frame_skip=options.frame_skip,
        screen_size=options.size,
        grayscale_obs=options.gray_scale,
    )
    if options.hides_episodes:
        env = RecordEpisodeStatistics(env)
    env = _stack(env, options)
    if options.life_loss:
        env = LifeLoss(env)
    return ClipReward(env, -1.0, 1.0) if options.clip_rewards else env


def _rebuild_atari(env: gymnasium.Env, options: PixelOptions) -> gymnasium.Env:
    """The same game with the options that the simulator itself must be built with."""
    spec = env.spec
    if spec is None:
        raise InvalidValueError(
            "pixels needs an Atari game made by its id, such as gymnasium.make('ALE/Pong-v5')."
        )
    env.close()
    return gymnasium.make(
        spec,
        frameskip=1,
        repeat_action_probability=float(options.sticky_actions),
        full_action_space=options.full_action_space,
        # The screen is read from the emulator afterwards; colours nobody looks at cost time.
        obs_type="grayscale" if options.gray_scale else "rgb",
        disable_env_checker=True,
    )


def _images(env: gymnasium.Env, options: PixelOptions) -> gymnasium.Env:
    default = PixelOptions()
    for name in _ATARI_ONLY:
        if getattr(options, name) and getattr(options, name) != getattr(default, name):
            raise InvalidValueError(
                f"{name}={getattr(options, name)!r} is an option for ALE/* games; leave it out for "
                f"{_name(env)}."
            )
    space = env.observation_space
    shape = space.shape or ()
    colours = len(shape) == 3 and shape[2] == 3
    if space.dtype != np.uint8 or not (colours or len(shape) == 2):
        raise InvalidValueError(
            f"pixels needs images [height, width] or [height, width, 3] of uint8; {_name(env)} "
            f"observes {space}."
        )
    if not options.gray_scale and not colours:
        raise InvalidValueError(
            f"gray_scale=False: {_name(env)} has no colours; use gray_scale=True."
        )
    if options.hides_episodes:
        env = RecordEpisodeStatistics(env)
    if options.frame_skip > 1:
        env = FrameSkip(env, options.frame_skip)
    if options.gray_scale and colours:
        env = GrayscaleObservation(env)
    env = _stack(ResizeObservation(env, (options.size, options.size)), options)
    return ClipReward(env, -1.0, 1.0) if options.clip_rewards else env


def _stack(env: gymnasium.Env, options: PixelOptions) -> gymnasium.Env:
    # Zeros before the first frame, as in ALE's own vector environment.
    return FrameStackObservation(env, options.frame_stack, padding_type="zero")


def _name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def _action_meanings(env: gymnasium.Env) -> list[str]:
    return env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]


class _UnpooledPreprocessing(AtariPreprocessing):
    """Without the maximum over the last two frames."""

    def _get_obs(self):
        self.obs_buffer[1].fill(0)
        return super()._get_obs()


class FireReset(gymnasium.Wrapper):
    """Presses FIRE once at the start of a game."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._fire = _action_meanings(env).index("FIRE")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        _, info = self.env.reset(seed=seed, options=options)
        observation, *_, step_info = self.env.step(self._fire)
        return observation, {**info, **step_info}


class FrameSkip(gymnasium.Wrapper):
    """Repeats every action `count` times and adds the rewards up."""

    def __init__(self, env: gymnasium.Env, count: int):
        super().__init__(env)
        self._count = count

    def step(self, action: Any):
        observation, total, terminated, truncated, info = self.env.step(action)
        for _ in range(self._count - 1):
            if terminated or truncated:
                break
            observation, reward, terminated, truncated, info = self.env.step(action)
            total = float(total) + float(reward)
        return observation, total, terminated, truncated, info


class LifeLoss(gymnasium.Wrapper):
    """Ends an episode when a life is lost.

    A `reset` without a seed then goes on with the game, from the observation the episode ended with;
    after the last life, or with a seed, it starts a new one.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._lives = 0
        self._goes_on = False
        self._last: tuple[Any, dict[str, Any]] = (None, {})

    def step(self, action: Any):
        observation, reward, terminated, truncated, info = self.env.step(action)
        lives = self._count_lives()
        # Some games stay at no lives for a few frames before they end.
        self._goes_on = 0 < lives < self._lives and not (terminated or truncated)
        self._lives = lives
        self._last = observation, dict(info)
        return observation, reward, terminated or self._goes_on, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if self._goes_on and seed is None:
            self._goes_on = False
            return self._last
        self._goes_on = False
        observation, info = self.env.reset(seed=seed, options=options)
        self._lives = self._count_lives()
        return observation, info

    def _count_lives(self) -> int:
        return self.unwrapped.ale.lives()  # type: ignore[attr-defined]


WRAPPERS.update(
    {
        _UnpooledPreprocessing: WRAPPERS[AtariPreprocessing],
        FireReset: (),
        FrameSkip: (),
        LifeLoss: ("_lives",),  # the others count only between an episode's end and the next reset
    }
)
