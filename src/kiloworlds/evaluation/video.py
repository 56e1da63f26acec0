"""One episode of a trained policy as frames: written to a GIF or MP4, or as text."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from kiloworlds.core.errors import InvalidValueError, MissingDependencyError
from kiloworlds.envs.drawing import Canvas
from kiloworlds.evaluation.task import frames_per_second
from kiloworlds.training.agents_policy import AgentsPolicy
from kiloworlds.training.policy import Policy
from kiloworlds.vector.base import VectorEnv
from kiloworlds.vector.compiled import CompiledVectorEnv
from kiloworlds.vector.compiled_agents import CompiledAgentsVectorEnv
from kiloworlds.vector.pettingzoo import PettingZooVectorEnv

FORMATS = (".gif", ".mp4")
TURNS_PER_SECOND = 4.0
_RAMP = " .:-=+*#%@"

Frame = UInt8[np.ndarray, "height width 3"]


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


def play_episode(
    envs: VectorEnv,
    act: Callable[[Any, dict[str, Any]], Any],
    *,
    seed: int,
    as_text: bool = False,
    max_steps: int = 10_000,
) -> Iterator[Moment]:
    """Plays one episode in a vector of one environment, giving each moment, the first included.

    Args:
        envs: one environment with `autoreset_mode="disabled"`, so that the last moment is seen.
        act: from observations `[1, ...]` and infos to actions `[1, ...]`.
        seed: of the reset.
        as_text: gives the text of environments that have one, instead of their picture.
        max_steps: ends an episode that does not.
    """
    observations, infos = envs.reset(seed=seed)
    total = 0.0
    yield Moment(0, None, 0.0, total, *_look(envs, as_text, observations))
    for step in range(1, max_steps + 1):
        actions = act(observations, infos)
        words = _in_words(envs, jax.tree.map(lambda leaf: leaf[0], actions), infos)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        reward = float(np.mean(rewards[0]))  # of several agents their mean
        total += reward
        yield Moment(step, words, reward, total, *_look(envs, as_text, observations))
        if np.all(terminated[0] | truncated[0]):
            return


def acting(policy: Policy | AgentsPolicy, deterministic: bool) -> Callable[..., Any]:
    """How a policy of one agent, or of several, acts in `play_episode`."""
    if isinstance(policy, AgentsPolicy):
        return lambda observations, infos: policy.act(observations, deterministic, infos)
    return lambda observations, _: policy.act(observations, deterministic)


def _look(envs: VectorEnv, as_text: bool, observations: Any) -> tuple[Frame | None, str | None]:
    """The picture and the text of the present state: what is observed where it offers neither."""
    text = envs.describe(0) if isinstance(envs, CompiledVectorEnv) else None
    if as_text and text is not None:
        return None, text
    frames = None if envs.render_mode is None else envs.render()
    if frames is None:
        return None, _observation_as_text(observations) if text is None else text
    if envs.render_mode == "ansi":
        return None, str(frames[0])
    return np.asarray(frames[0], np.uint8), None


def _observation_as_text(observations: Any) -> str:
    """The observation of the first environment, short even where it is a picture."""
    with np.printoptions(precision=3, suppress=True, threshold=100, edgeitems=3):
        return "\n".join(str(leaf[0]) for leaf in jax.tree.leaves(observations))


def _in_words(envs: VectorEnv, action: Any, infos: dict[str, Any]) -> str:
    """An action, or those of all agents that act: by the names the environment gives, else by number."""
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
    acting = np.asarray(infos.get("acting", infos["alive"]))[0]
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


def captioned(moment: Moment) -> Frame:
    """The picture of a moment below a strip with its step, the action taken and the return so far.

    Raises:
        InvalidValueError: the moment has no picture.
    """
    if moment.picture is None:
        raise InvalidValueError("only a moment with a picture can have a caption.")
    width = moment.picture.shape[1]
    size = min(20, max(8, width // 20))  # pixels; small pictures get small letters
    strip = Canvas(width, 2 * size, x_range=(0, width), background="#e2e8f0")
    strip.text((size, 0), f"step {moment.step:,}", "#1e293b", size, align="left")
    if moment.action is not None:
        is_name = moment.action[:1].isalpha()
        action = moment.action if is_name else f"action {moment.action}"
        room = round(width / size)  # characters between what stands left and right of it
        shown = action if len(action) <= room else f"{action[:room]}…"
        strip.text((width / 2, 0), shown, "#64748b", size)
    earned = f"return {short(moment.episode_return)}"
    strip.text((width - size, 0), earned, "#1e293b", size, align="right")
    return np.concatenate([strip.pixels(), moment.picture])


def write_video(frames: Sequence[Frame], path: Path, frames_per_second: float) -> None:
    """Writes frames of one size to `path`, whose ending says the format (.gif or .mp4).

    Raises:
        InvalidValueError: no frames, or another ending.
        MissingDependencyError: MP4 without PyAV.
    """
    if not frames:
        raise InvalidValueError("a video needs at least one frame.")
    if path.suffix.lower() not in FORMATS:
        raise InvalidValueError(f"{path.name} must end in {' or '.join(FORMATS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        _write_gif(frames, path, frames_per_second)
    else:
        _write_mp4(frames, path, frames_per_second)


def _write_gif(frames: Sequence[Frame], path: Path, frames_per_second: float) -> None:
    from PIL import Image

    # GIF counts time in hundredths of a second, and viewers slow down anything below two of them.
    keep_every = max(1, round(frames_per_second / 50))
    delay = max(2, round(100 * keep_every / frames_per_second)) * 10
    kept = [*frames[:-1:keep_every], frames[-1]]
    # One palette for all frames, from a few of them: colours do not flicker, and files stay small.
    sample = np.concatenate(kept[:: max(1, len(kept) // 4)])
    palette = Image.fromarray(sample).quantize(255, method=Image.Quantize.MEDIANCUT)
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept
    ]
    last = 1000  # rests on the end before it starts over
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[delay] * (len(images) - 1) + [last],
        loop=0,
        optimize=False,
    )


def _write_mp4(frames: Sequence[Frame], path: Path, frames_per_second: float) -> None:
    from fractions import Fraction

    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            'MP4 needs PyAV: pip install "kiloworlds[video]". GIF needs nothing more.'
        ) from error
    height, width = (size - size % 2 for size in frames[0].shape[:2])  # H.264 wants even sizes
    with av.open(str(path), "w") as container:
        rate = Fraction(frames_per_second).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def picture_as_text(picture: Frame, columns: int = 78) -> str:
    """A picture as `columns` characters a line; the further from the background, the denser."""
    from PIL import Image

    height, width = picture.shape[:2]
    lines = max(1, round(columns * height / width / 2))  # a character is twice as high as wide
    small = Image.fromarray(picture).resize((columns, lines), Image.Resampling.BOX)
    pixels = np.asarray(small, float)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    distance = np.linalg.norm(pixels - background, axis=-1)
    density = distance / max(distance.max(), 1.0)
    levels = np.round(density * (len(_RAMP) - 1)).astype(int)
    return "\n".join("".join(_RAMP[level] for level in row).rstrip() for row in levels)
