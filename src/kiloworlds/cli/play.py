"""`kiloworlds play` (or `enjoy`): shows one episode of a trained agent."""

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

import kiloworlds
from kiloworlds.cli import options
from kiloworlds.core import devices
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.words import number
from kiloworlds.evaluation.task import gymnasium_render_mode
from kiloworlds.evaluation.video import (
    FORMATS,
    Moment,
    acting,
    captioned,
    pace,
    picture_as_text,
    play_episode,
    short,
    write_video,
)

DESCRIPTION = """\
Plays one episode with a trained agent and keeps it as a GIF or MP4 in the videos folder of the run;
environments without a picture, and all with --ascii, play in the terminal, as text or as what the
agent observes: kiloworlds play RUN."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `play`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run, such as runs/ppo/CartPole-v1_1."""
    format: Literal["gif", "mp4"] = "gif"
    """Kind of video; mp4 needs the extra `video`."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write instead of one in the videos folder; its ending says the format."""
    ascii: options.Flag = False
    """Play in the terminal, as text."""
    fps: float | None = None
    """Frames per second; what the environment asks for if not given, 4 if it moves in turns."""
    seed: int = 0
    """Seed of the episode."""
    seed_index: int = 0
    """Whose policy plays, for a run of several seeds; counted from 0."""
    stochastic: options.Flag = False
    """Draw actions from the policy instead of taking the most likely."""
    max_steps: int = 5_000
    """Cut an episode that does not end."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "play", DESCRIPTION)
    if chosen.fps is not None and not 0 < chosen.fps <= 1000:
        raise InvalidValueError(f"--fps {chosen.fps:g} must lie between 0 and 1000.")
    if chosen.max_steps < 1:
        raise InvalidValueError(f"--max-steps {chosen.max_steps} must be 1 or more.")
    if chosen.output is not None and chosen.output.suffix.lower() not in FORMATS:
        raise InvalidValueError(f"--output {chosen.output} must end in {' or '.join(FORMATS)}.")
    console = options.console(chosen.json)
    devices.configure()
    trained = kiloworlds.load(chosen.run)
    policy = trained.policy.select_seed(chosen.seed_index)
    env_id = trained.config["env_id"]
    envs = _make_env(trained)
    rate = chosen.fps or pace(envs, env_id)
    moments = play_episode(
        envs,
        acting(policy, deterministic=not chosen.stochastic),
        seed=chosen.seed,
        max_steps=chosen.max_steps,
        as_text=chosen.ascii,
    )
    first = next(moments)
    path = None
    if chosen.ascii or first.picture is None:
        last = _show(console, [first], moments, rate)
    else:
        seen = [first, *moments]
        last = seen[-1]
        path = chosen.output or _video_path(trained.path, env_id, chosen)
        write_video([captioned(moment) for moment in seen], path, rate)
    envs.close()
    if chosen.json:
        result = {"env_id": env_id, "episode_return": last.episode_return, "steps": last.step}
        options.print_json({"path": trained.path, "video": path, **result, "seed": chosen.seed})
    line = Text(f"return {number(last.episode_return)}", style="bold")
    line.append(f"  {last.step:,} steps", "not bold")
    console.print(line)
    if path is not None:
        console.print(Text("video ", "dim").append(str(path), "not dim"), soft_wrap=True)
    return 0


def _make_env(trained: Any) -> Any:
    """One environment that keeps the last moment of its episode in sight."""
    render = {}
    if trained.environment["backend"] != "compiled":
        mode = gymnasium_render_mode(trained.config["env_id"])
        render = {} if mode is None else {"render_mode": mode}  # not all take one
    return trained.make_envs(1, autoreset_mode="disabled", **render)


def _video_path(run_path: Path, env_id: str, chosen: Options) -> Path:
    name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in env_id)
    policy = f"-policy{chosen.seed_index}" if chosen.seed_index else ""
    return run_path / "videos" / f"{name}{policy}-seed{chosen.seed}.{chosen.format}"


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
