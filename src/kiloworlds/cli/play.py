"""`kiloworlds play` (or `enjoy`): shows one episode of a trained agent, or many side by side."""

import dataclasses
import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.live import Live
from rich.text import Text

from kiloworlds.cli import options
from kiloworlds.cli.display import progress_line
from kiloworlds.core import devices
from kiloworlds.core.checks import require_count
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.words import number
from kiloworlds.evaluation.episode import (
    Moment,
    acting,
    pace,
    play_episode,
    short,
    watchable_envs,
)
from kiloworlds.evaluation.grid import GridVideo, grid_of, play_grid
from kiloworlds.evaluation.pictures import captioned, picture_as_text
from kiloworlds.evaluation.video import check_can_write, video_path, write_video
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.run import Run

DESCRIPTION = """\
Plays one episode with a trained agent and keeps it as a GIF or MP4 in the videos folder of the run;
environments without a picture, and all with --ascii, play in the terminal, as text or as what the
agent observes: kiloworlds play RUN. With --grid 8x8 one video shows 64 episodes at once."""
_LARGE = 10e6
"""Bytes from which on a GIF is one to wait for."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `play`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run, such as runs/ppo/CartPole-v1_1."""
    format: Literal["gif", "mp4"] | None = None
    """Kind of video; gif if neither this nor --output says, and mp4 needs the extra `video`."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write instead of one in the videos folder; it ends in .gif or .mp4."""
    grid: Annotated[str | None, tyro.conf.arg(metavar="COLUMNSxROWS")] = None
    """Play many episodes side by side in one video, such as 8x8: eight columns of eight."""
    checkpoint: options.Checkpoint = "newest"
    """Whose policy plays: newest, best (by the return while training) or the number of its steps."""
    ascii: options.Flag = False
    """Play in the terminal, as text."""
    fps: float | None = None
    """Frames per second; what the environment asks for if not given, 4 if it moves in turns."""
    seed: int = 0
    """Seed of the episode; of a grid, of its first one."""
    seed_index: int = 0
    """Whose policy plays, for a run of several seeds; counted from 0."""
    stochastic: options.Flag = False
    """Draw actions from the policy instead of taking the most likely."""
    max_steps: int = 5_000
    """Cut an episode that does not end."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "play", DESCRIPTION)
    if chosen.fps is not None and not 0.1 <= chosen.fps <= 1000:
        raise InvalidValueError(f"--fps {chosen.fps:g} must lie between 0.1 and 1000.")
    require_count("--max-steps", chosen.max_steps)
    if chosen.output is not None:
        check_can_write(chosen.output)
        if chosen.format not in (None, chosen.output.suffix.lower().removeprefix(".")):
            raise InvalidValueError(
                f"--output {chosen.output} says another format than --format {chosen.format}: give one."
            )
    grid = None if chosen.grid is None else grid_of(chosen.grid)
    if grid is not None and chosen.ascii:
        raise InvalidValueError("--grid makes a video; leave out --ascii, or --grid.")
    console = options.console(chosen.json)
    devices.configure()
    trained = options.load(chosen.run, chosen.checkpoint)
    return (
        _play_one(trained, chosen, console)
        if grid is None
        else _play_many(trained, chosen, console)
    )


def _play_one(trained: Run, chosen: Options, console: Console) -> int:
    policy = trained.policy.select_seed(chosen.seed_index)
    env_id = trained.config["env_id"]
    path = None
    with watchable_envs(trained, 1, "disabled") as envs:
        rate = chosen.fps or pace(envs, env_id)
        moments = play_episode(
            envs,
            acting(policy, deterministic=not chosen.stochastic),
            seed=chosen.seed,
            max_steps=chosen.max_steps,
            as_text=chosen.ascii,
        )
        last = first = next(moments)
        if chosen.ascii or first.picture is None:
            last = _show(console, [first], moments, rate)
        else:

            def frames():
                nonlocal last
                for last in itertools.chain([first], moments):
                    yield captioned(last)

            path = chosen.output or _default_path(trained, chosen)
            write_video(frames(), path, rate)
    if chosen.json:
        result = {"env_id": env_id, "episode_return": last.episode_return, "steps": last.step}
        result |= {"seed": chosen.seed, "policy": _policy_name(trained, chosen)}
        options.print_json({"path": trained.path, "video": path, **result})
    line = Text(f"return {number(last.episode_return)}", style="bold")
    line.append(f"  {last.step:,} steps", "not bold")
    console.print(line)
    _tell_policy(trained, chosen, console)
    _tell_video(path, console)
    return 0


def _play_many(trained: Run, chosen: Options, console: Console) -> int:
    assert chosen.grid is not None
    with progress_line(Console(stderr=True, highlight=False)) as say:
        video = play_grid(
            trained,
            chosen.grid,
            chosen.output or _default_path(trained, chosen),
            seed=chosen.seed,
            seed_index=chosen.seed_index,
            deterministic=not chosen.stochastic,
            max_steps=chosen.max_steps,
            frames_per_second=chosen.fps,
            on_progress=say,
        )
    if chosen.json:
        policy = _policy_name(trained, chosen)
        options.print_json({**_grid_as_json(trained, video), "policy": policy})
    console.print(_mean_in_words(video), soft_wrap=True)
    _tell_policy(trained, chosen, console)
    cut = int((~video.ended).sum())
    if cut:
        words = f"{cut} never ended; what was earned up to --max-steps {chosen.max_steps:,} counts"
        console.print(Text(words, "yellow"), soft_wrap=True)
    _tell_video(video.path, console)
    size = video.path.stat().st_size
    if size > _LARGE and video.path.suffix.lower() == ".gif":
        words = f"{size / 1e6:.0f} MB; with --format mp4 (needs the extra video) it is far smaller"
        console.print(Text(words, "dim"), soft_wrap=True)
    return 0


def _mean_in_words(video: GridVideo) -> Text:
    """Such as "mean return 250.6 over 64 episodes, worst 199.0, best 310.0"."""
    count = len(video.seeds)
    words = f" over {count} episode{'' if count == 1 else 's'}"
    if count > 1:
        worst, best = number(video.returns.min()), number(video.returns.max())
        words += f", worst {worst}, best {best}"
    return Text(f"mean return {number(video.mean_return)}", style="bold").append(words, "not bold")


def _policy_name(trained: Run, chosen: Options) -> str:
    return TrainConfig.from_dict(trained.config).member_names[chosen.seed_index]


def _tell_policy(trained: Run, chosen: Options, console: Console) -> None:
    """Which checkpoint's policy was seen, where the best was asked for; of a run of several seeds whose,
    and how to see another's."""
    options.tell_best(trained, console)
    config = TrainConfig.from_dict(trained.config)
    if config.num_members > 1:
        words = (
            f"{_policy_name(trained, chosen)} played, one of {config.members_in_words}; choose with "
            f"--seed-index 0 to {config.num_members - 1}"
        )
        console.print(Text(words, "dim"), soft_wrap=True)


def _grid_as_json(trained: Run, video: GridVideo) -> dict[str, Any]:
    return {
        "path": trained.path,
        "video": video.path,
        "env_id": trained.config["env_id"],
        "grid": str(video.grid),
        "episodes": len(video.seeds),
        "mean_return": video.mean_return,
        "returns": video.returns,
        "lengths": video.lengths,
        "seeds": video.seeds,
        "cut": int((~video.ended).sum()),
        "frames_per_second": video.frames_per_second,
        "steps_per_frame": video.steps_per_frame,
    }


def _tell_video(path: Path | None, console: Console) -> None:
    if path is not None:
        console.print(Text("video ", "dim").append(str(path), "not dim"), soft_wrap=True)


def _default_path(trained: Run, chosen: Options) -> Path:
    what = "" if chosen.grid is None else f"grid{grid_of(chosen.grid)}"
    return video_path(
        trained, what, seed=chosen.seed, seed_index=chosen.seed_index, format=chosen.format or "gif"
    )


def _show(console: Console, first: list[Moment], rest: Iterable[Moment], rate: float) -> Moment:
    """Plays moments in place at their pace in a terminal, one below the other elsewhere."""
    last = first[0]
    if not console.is_terminal:
        for last in itertools.chain(first, rest):
            console.print(_as_text(last, console), soft_wrap=True)
        return last
    with Live(console=console, auto_refresh=False) as live:
        due = time.monotonic()
        for last in itertools.chain(first, rest):
            live.update(_as_text(last, console), refresh=True)
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))
    return last


def _as_text(moment: Moment, console: Console) -> Text:
    if moment.text is not None:
        shown = Text.from_ansi(moment.text)
    else:
        assert moment.picture is not None
        shown = Text(picture_as_text(moment.picture, min(console.width - 2, 100)))
    words = [f"step {moment.step}"]
    if moment.action is not None:
        words += [f"action {moment.action}", f"reward {short(moment.reward)}"]
    words.append(f"return {short(moment.episode_return)}")
    return shown.append("\n" + "  ".join(words) + "\n", "dim")
