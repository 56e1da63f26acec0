"""Episodes of a trained policy, step by step: many at once, or one that is shown or described."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.task import frames_per_second, gymnasium_render_mode
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.policy import Policy
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.compiled_agents import CompiledAgentsVectorEnv
from kiloworlds.vector.pettingzoo import PettingZooVectorEnv

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

TURNS_PER_SECOND = 4.0

Act = Callable[[Any, dict[str, Any]], Any]
"""From observations `[N, ...]` and infos to actions `[N, ...]`."""
Frame = UInt8[np.ndarray, "height width 3"]


class Instant(NamedTuple):
    """One step of N episodes that began together, and what it led to.

    `actions` is None at the first instant; `infos` are those that were acted on, as of which agents
    acted. Returns and lengths stand still where an episode has ended; `ends` tells which did just now.
    """

    step: int
    observations: Any
    actions: Any
    infos: dict[str, Any]
    rewards: Float[np.ndarray, " N"]
    returns: Float[np.ndarray, " N"]
    lengths: Int[np.ndarray, " N"]
    goes_on: Bool[np.ndarray, " N"]
    ends: Bool[np.ndarray, " N"]


class Moment(NamedTuple):
    """One moment of an episode: what led to it, what has been earned so far, and how it looks.

    `action` in words is None at the first moment; `picture` or `text` is None.
    """

    step: int
    action: str | None
    reward: float
    episode_return: float
    picture: Frame | None
    text: str | None


def watchable_envs(run: "Run", num_envs: int, autoreset_mode: str) -> VectorEnv:
    """Environments like those of a run, with pictures if they have any.

    Args:
        autoreset_mode: one that leaves the last moment of an episode in sight: "next_step", or
            "disabled" for a single one.
    """
    render = {}
    if run.environment["backend"] != "compiled":
        mode = gymnasium_render_mode(run.config["env_id"])
        render = {} if mode is None else {"render_mode": mode}  # not all take one
    return run.make_envs(num_envs, autoreset_mode=autoreset_mode, **render)


def first_picture(envs: VectorEnv, seeds: list[int], env_id: str) -> Frame:
    """What the first environment looks like at its start.

    Raises:
        InvalidValueError: like nothing, or like text.
    """
    envs.reset(seed=seeds)  # type: ignore[arg-type]
    frames = envs.render([0]) if envs.render_mode == "rgb_array" else None
    if frames is None or frames[0] is None:
        raise InvalidValueError(
            f"{env_id} has no pictures to make a video of; `kiloworlds play` without --grid plays one "
            "episode as text."
        )
    return as_picture(frames[0])


def as_picture(rendered: Any) -> Frame:
    """What `render` gave as a picture of three colours; grey ones and those with an alpha channel too.

    Raises:
        InvalidValueError: it is none.
    """
    try:
        picture: Any = np.asarray(rendered).astype(np.uint8)
    except (TypeError, ValueError):  # None, words, rows of unequal lengths
        picture = np.zeros(0, np.uint8)
    shape = picture.shape if picture.ndim != 2 else (*picture.shape, 1)
    if not picture.size or len(shape) != 3 or shape[2] not in (1, 3, 4):
        given = f"the shape {list(picture.shape)}" if picture.size else "no picture"
        raise InvalidValueError(
            f"render() of the environment gave {given} ({type(rendered).__name__}): a picture must have "
            "the shape [height, width, 3] and numbers from 0 to 255."
        )
    colours = picture.reshape(shape)
    return np.repeat(colours, 3, axis=2) if shape[2] == 1 else colours[..., :3]


def acting(policy: Policy | AgentsPolicy, deterministic: bool) -> Act:
    """How a policy of one agent, or of several, acts: each time with the same memory and randomness."""
    policy = policy.select_seed(policy.seed_index)
    if isinstance(policy, AgentsPolicy):
        return lambda observations, infos: policy.act(observations, deterministic, infos)
    return lambda observations, _: policy.act(observations, deterministic)


def play_together(
    envs: VectorEnv, act: Act, *, seed: int | list[int], max_steps: int
) -> Iterator[Instant]:
    """Plays one episode in each of N environments, until all have ended.

    Environments whose episode has ended are stepped on, since a vector steps all; it no longer counts.

    Args:
        envs: with `autoreset_mode="next_step"`, so that the last moment of an episode is there to be
            seen; a single one may be "disabled".
        seed: of the reset: environment i has `seed + i`, or the i-th of a list.
        max_steps: cuts episodes that do not end.
    """
    observations, infos = envs.reset(seed=seed)  # type: ignore[arg-type]
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int)
    goes_on = np.ones(envs.num_envs, bool)
    yield Instant(0, observations, None, infos, returns, returns, lengths, goes_on, ~goes_on)
    for step in range(1, max_steps + 1):
        actions, acted_on = act(observations, infos), infos
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        # Of several agents rewards are [N, A] and count by their mean; they end together.
        rewards = np.reshape(np.asarray(rewards, float), (envs.num_envs, -1)).mean(axis=1)
        rewards = np.where(goes_on, rewards, 0.0)
        over = np.reshape(terminated | truncated, (envs.num_envs, -1)).all(axis=1)
        returns, lengths = returns + rewards, lengths + goes_on
        ends, goes_on = goes_on & over, goes_on & ~over
        yield Instant(
            step, observations, actions, acted_on, rewards, returns, lengths, goes_on, ends
        )
        if not goes_on.any():
            return


def play_episode(
    envs: VectorEnv,
    act: Act,
    *,
    seed: int,
    as_text: bool = False,
    max_steps: int = 10_000,
) -> Iterator[Moment]:
    """Plays one episode in a vector of one environment, giving each moment, the first included.

    Args:
        envs: one environment with `autoreset_mode="disabled"`, so that the last moment is seen.
        seed: of the reset.
        as_text: gives the text of environments that have one, instead of their picture.
        max_steps: ends an episode that does not.
    """
    for instant in play_together(envs, act, seed=seed, max_steps=max_steps):
        yield moment_of(envs, instant, 0, *_look(envs, as_text, instant.observations))


def moment_of(
    envs: VectorEnv, instant: Instant, index: int, picture: Frame | None, text: str | None = None
) -> Moment:
    """What an instant is to one of the environments."""
    words = None
    if instant.actions is not None:
        words = _in_words(envs, instant.actions, instant.infos, index)
    earned = float(instant.rewards[index]), float(instant.returns[index])
    return Moment(instant.step, words, *earned, picture, text)


def _look(envs: VectorEnv, as_text: bool, observations: Any) -> tuple[Frame | None, str | None]:
    """The picture and the text of the present state: what is observed where it offers neither."""
    text = envs.describe(0) if isinstance(envs, CompiledVectorEnv) else None
    if as_text and text is not None:
        return None, text
    frames = None if envs.render_mode is None else envs.render()
    if frames is None or frames[0] is None:
        return None, _observation_as_text(observations) if text is None else text
    if envs.render_mode == "ansi":
        return None, str(frames[0])
    return as_picture(frames[0]), None


def _observation_as_text(observations: Any) -> str:
    """The observation of the first environment, short even where it is a picture."""
    with np.printoptions(precision=3, suppress=True, threshold=100, edgeitems=3):
        return "\n".join(str(leaf[0]) for leaf in jax.tree.leaves(observations))


def _in_words(envs: VectorEnv, actions: Any, infos: dict[str, Any], index: int) -> str:
    """The action in one environment, or those of all its agents that act: by the names that the
    environment gives, else by number."""
    action = jax.tree.map(lambda leaf: leaf[index], actions)
    environment = envs.env.unwrapped if isinstance(envs, CompiledVectorEnv) else None
    names = getattr(environment, "action_names", None)
    if not isinstance(envs, CompiledAgentsVectorEnv | PettingZooVectorEnv):
        return _one_in_words(action, names)
    blocks = action if len(envs.kinds) > 1 else dict.fromkeys(envs.kinds, action)
    words = {
        place: _one_in_words(jax.tree.map(lambda leaf, row=row: leaf[row], blocks[name]), names)
        for name, kind in envs.kinds.items()
        for row, place in enumerate(kind.indices)
    }
    acting = np.asarray(infos.get("acting", infos["alive"]))[index]
    return ", ".join(words[place] for place in sorted(words) if acting[place])


def _one_in_words(action: Any, names: Sequence[str] | None) -> str:
    if names is not None:
        return names[int(action)]
    numbers = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(action)])
    return " ".join(short(number) for number in numbers)


def short(number: float) -> str:
    """A number with at most two decimals, such as -13, 0.77 or 3,656.03."""
    return f"{round(float(number), 2) + 0.0:,.2f}".rstrip("0").rstrip(".")


def pace(envs: VectorEnv, env_id: str) -> float:
    """The frames per second at which to show an episode.

    Environments whose state holds whole numbers only, as in board games, or whose agents take turns,
    are shown at four turns a second; others as they ask, or Gymnasium's environment of that id, else
    at 30.
    """
    asked = envs.metadata.get("render_fps")
    if isinstance(envs, CompiledVectorEnv):
        state, _ = jax.eval_shape(envs.env.unwrapped.reset, jax.random.key(0))
        if not any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(state)):
            return TURNS_PER_SECOND
        asked = envs.env.unwrapped.render_fps
    elif isinstance(envs, PettingZooVectorEnv) and envs.is_turn_based:
        return TURNS_PER_SECOND
    return asked or frames_per_second(env_id)
