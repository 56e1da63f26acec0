"""Videos of a run's best, median and worst episode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float

from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError, KiloworldsError, unknown_name
from kiloworlds.evaluation.episode import (
    Instant,
    acting,
    as_picture,
    first_picture,
    moment_of,
    pace,
    play_together,
    watchable_envs,
)
from kiloworlds.evaluation.pictures import captioned
from kiloworlds.evaluation.video import FORMATS, Film, check_can_write, video_path, write_video
from kiloworlds.vector.base import VectorEnv, expand_seeds

if TYPE_CHECKING:
    from kiloworlds.training.run import Run

Pick = Literal["best", "median", "worst"]


class NotRepeatableError(KiloworldsError, RuntimeError):
    """An episode that was played again came out differently."""


@dataclass(frozen=True)
class PickedEpisode:
    """One of many episodes, and its video.

    Attributes:
        pick: why it was chosen.
        seed: of its environment.
        episode_return: of several agents their mean.
        length: in steps.
        ended: whether it ended; otherwise it was cut, and counts as far as it went.
        video: the file.
    """

    pick: Pick
    seed: int
    episode_return: float
    length: int
    ended: bool
    video: Path


def episodes_by_return(
    run: "Run",
    folder: Path | None = None,
    *,
    episodes: int = 32,
    picks: Sequence[Pick] = ("best", "median", "worst"),
    seed: int = 10_000,
    seed_index: int = 0,
    deterministic: bool = True,
    max_steps: int = 5_000,
    format: Literal["gif", "mp4"] = "gif",
) -> tuple[PickedEpisode, ...]:
    """Plays many episodes at once, chooses some by their return and writes a video of each.

    Each environment plays one episode, from a seed of its own. Then all are played again, the same, and
    only those chosen are drawn.

    Args:
        run: of a training.
        folder: where the videos go; by default the videos folder of the run.
        episodes: to choose from.
        picks: which; of an even number of episodes the median is the lower of the middle two.
        seed: of the first environment; the others have the seeds that follow.
        seed_index: whose policy plays, for a run of several seeds.
        deterministic: the most likely actions; otherwise drawn from the policy.
        max_steps: cuts episodes that do not end.
        format: of the videos; "mp4" needs the extra `video`.

    Returns:
        One for each of `picks`, in that order.

    Raises:
        InvalidValueError: an environment without pictures, or another format.
        UnknownNameError: a pick that is none.
        MissingDependencyError: MP4 without PyAV.
        NotRepeatableError: an episode came out differently when it was played again.
    """
    episodes, max_steps = require_count("episodes", episodes), require_count("max_steps", max_steps)
    for pick in picks:
        if pick not in get_args(Pick):
            raise unknown_name("pick", str(pick), get_args(Pick), "its type, Pick")
    if f".{format}" not in FORMATS:
        raise InvalidValueError(f"format={format!r} must be 'gif' or 'mp4'.")
    check_can_write((folder or run.path / "videos") / f"video.{format}")
    env_id = run.config["env_id"]
    policy = run.policy.select_seed(seed_index)
    with watchable_envs(run, episodes, "next_step") as envs:
        seeds = expand_seeds(seed, episodes)
        first_picture(envs, seeds, env_id)

        def play() -> Iterator[Instant]:
            act = acting(policy, deterministic)
            return play_together(envs, act, seed=seeds, max_steps=max_steps)

        *_, last = play()
        chosen: dict[Pick, int] = {pick: _place(last.returns, pick) for pick in picks}
        films = _films(envs, play(), sorted(set(chosen.values())), last)
        rate = pace(envs, env_id)
    videos = []
    for pick, index in chosen.items():
        path = video_path(run, pick, seed=seeds[index], seed_index=seed_index, format=format)
        path = path if folder is None else folder / path.name
        write_video(films[index], path, rate)
        told = float(last.returns[index]), int(last.lengths[index]), not last.goes_on[index]
        videos.append(PickedEpisode(pick, seeds[index], *told, path))
    return tuple(videos)


def _place(returns: Float[np.ndarray, " N"], pick: Pick) -> int:
    """Which episode is the best, the median or the worst; of equals the first ones are worse."""
    order = np.argsort(returns, kind="stable")
    place = {"best": -1, "median": (len(order) - 1) // 2, "worst": 0}[pick]
    return int(order[place])


def _films(
    envs: VectorEnv, instants: Iterator[Instant], chosen: list[int], before: Instant
) -> dict[int, Film]:
    """Each chosen episode as a film with captions.

    Args:
        before: the end of the same episodes when they were played before.
    """
    films = {index: Film() for index in chosen}
    last = before
    for last in instants:
        seen = [index for index in chosen if last.goes_on[index] or last.ends[index]]
        pictures = envs.render(seen) if seen else ()
        assert pictures is not None  # the first one was there
        for index, picture in zip(seen, pictures, strict=True):
            moment = moment_of(envs, last, index, as_picture(picture))
            films[index].add(captioned(moment))
    for index in chosen:
        now, then = last.returns[index], before.returns[index]
        if (now, last.lengths[index]) != (then, before.lengths[index]):
            raise NotRepeatableError(
                f"episode {index} returned {then:g} in {before.lengths[index]} steps, and "
                f"{now:g} in {last.lengths[index]} when it was played again from the same seed: the "
                "environment draws random numbers that its seed does not set."
            )
    return films
