"""`kiloworlds train`: reads the settings, trains with a live display, says what to do next."""

import contextlib
import dataclasses
import math
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from kiloworlds.cli import autotuning, options, training_flags
from kiloworlds.cli.ctrl_c import SIGNALLED
from kiloworlds.cli.display import make_display, mean_and_spread, outcome, spread_text
from kiloworlds.core.checks import require_number
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.task import reward_threshold
from kiloworlds.training.config import TrainConfig, build_config

DESCRIPTION = """\
Trains an agent: kiloworlds train ALGORITHM ENV [flags].

Settings come from the preset of the environment, then from --config, then from flags; where the
environment is named, the defaults below are those of its preset. Parameters of the environment:
--env.length 0.7, or --env-kwargs '{"length": 0.7}'. Ctrl-C ends early and keeps what was learnt:
--run-dir RUN --resume goes on with a run as if it had never stopped."""

_ROUNDED_UP = 1.01  # below a hundredth more steps nobody wants to hear of it


@dataclasses.dataclass(frozen=True)
class Options(autotuning.Options):
    """Flags of `train` beside the settings."""

    run_dir: str | None = None
    """Directory of the run; runs/ALGORITHM/ENV_1, ENV_2, ... if not given."""
    resume: options.Flag = False
    """Go on with the run in --run-dir from its newest checkpoint; its settings are the defaults."""
    override: options.Flag = False
    """With --resume: let settings differ that make it another training."""
    replay_order: str | None = None
    """Repeat this run, whose environments went each at its own pace (--batch-size), exactly: results
    are taken in the order in which they arrived then."""
    log: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[NAME ...]")] = None
    """Trackers that get the metrics too: tensorboard, wandb, mlflow, trackio. With --resume those of the
    run if not given; --log alone is none."""
    supervise: options.Flag = False
    """Train in a process of its own, which is started again from its newest state if it crashes or
    hangs."""
    hang_timeout: float = 300.0
    """With --supervise: seconds without a sign of life after which training counts as hung."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    old = _settings_of_old_run(arguments)
    asked = training_flags.read("train", arguments, Options, DESCRIPTION, old)
    chosen = asked.options
    if (chosen.autotune or chosen.autotune_again) and (chosen.resume or chosen.replay_order):
        raise InvalidValueError(
            "--autotune is for a training that begins: one that goes on, or is repeated, has its "
            "settings."
        )
    if chosen.supervise:
        return _supervise(arguments, chosen)
    return _train(asked)


def _supervise(words: Sequence[str], chosen: Options) -> int:
    """Watches another process that does what was asked for."""
    from kiloworlds.training.survival.supervisor import Limits, Supervisor

    require_number("hang_timeout", chosen.hang_timeout, 1.0)
    if chosen.replay_order is not None:
        raise InvalidValueError("--supervise is not for --replay-order: a repetition starts once.")
    console = options.console(chosen.json)
    command = [sys.executable, "-m", "kiloworlds.cli.main", "train"]
    same = _without(words, "--supervise")
    again = _without(_without(same, "--resume"), "--run-dir", takes_value=True)
    for flag in ("--autotune", "--autotune-again"):  # the run has its settings
        again = _without(again, flag)
    again = _without(again, "--autotune-seconds", takes_value=True)
    supervisor = Supervisor(
        [*command, *same],
        lambda path: [*command, *again, "--run-dir", str(path), "--resume"],
        Limits(hang_seconds=chosen.hang_timeout),
        lambda said: console.print(Text(said, "yellow"), soft_wrap=True),
    )
    return supervisor.run()


def _settings_of_old_run(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings of the run to go on with, or to repeat; none where training begins."""
    from kiloworlds.training.run import load

    path = _value_of("--replay-order", arguments)
    if path is None and "--resume" in arguments:
        path = _value_of("--run-dir", arguments)
        if path is None:
            raise InvalidValueError("--resume goes on with the run in --run-dir: say which.")
    if path is None:
        return {}
    return dict(load(path).config) if "--resume" in arguments else load(path).settings_at(0)


def _without(words: Sequence[str], flag: str, takes_value: bool = False) -> list[str]:
    """Words of a command line without a flag, and without its value."""
    left = []
    remaining = iter(words)
    for word in remaining:
        name, equals, _ = word.partition("=")
        if name.replace("_", "-") != flag:
            left.append(word)
        elif takes_value and not equals:
            next(remaining, None)
    return left


def _value_of(wanted: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag; None if it is not given."""
    for index, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if flag.replace("_", "-") == wanted:
            return value if equals else "".join(arguments[index + 1 : index + 2])
    return None


def _train(asked: training_flags.Asked[Options]) -> int:
    from kiloworlds.training.train import train_config

    algorithm, env_id, chosen = asked.algorithm, asked.env_id, asked.options
    console = options.console(chosen.json)
    settings, tuned = autotuning.autotuned(asked, console)
    config = build_config(algorithm, env_id, settings)
    total_steps = config.num_updates * config.steps_per_update
    several = config.num_members > 1
    title = f"{algorithm} · {env_id}" + (f" · {config.members_in_words}" if several else "")
    last: dict[str, Any] = {}
    display = make_display(console, title, total_steps, reward_threshold(env_id))

    def on_metrics(row: dict[str, Any]) -> None:
        last.update(row)
        display.update(row)

    def on_start(path: Path, config: TrainConfig) -> None:
        shown.enter_context(display)
        if not chosen.resume and chosen.run_dir is not None and path != Path(chosen.run_dir):
            message = f"{chosen.run_dir} holds a run already; this one goes to {path}."
            console.print(Text(message, "yellow"), soft_wrap=True)
        if total_steps > _ROUNDED_UP * config.total_steps:
            message = (
                f"{total_steps:,} steps instead of {config.total_steps:,}: training takes whole "
                f"rollouts of {config.steps_per_update:,} (num_envs * num_steps)."
            )
            console.print(Text(message, "yellow"), soft_wrap=True)

    with contextlib.ExitStack() as shown:
        result = train_config(
            config,
            run_dir=chosen.run_dir,
            resume=chosen.resume,
            override=chosen.override,
            replay_order=chosen.replay_order,
            log=chosen.log,
            on_start=on_start,
            on_metrics=on_metrics,
            on_progress=on_metrics,
            say=lambda words: console.print(Text(words, "yellow"), soft_wrap=True),
        )
    curve = _plot(result, console) if last else None
    whose, ends = _ends(config, last.get("rollout/ep_rew_mean"))
    final = mean_and_spread(ends)
    if chosen.json:
        options.print_json(
            {
                "path": result.path,
                "algorithm": algorithm,
                "env_id": env_id,
                "num_seeds": config.num_seeds,
                "policies": config.member_names,
                "steps": result.steps,
                "seconds": last.get("seconds", 0.0),
                "of": whose,
                "final_return": None if final is None else final[0],
                "final_return_std": None if final is None else final[1],
                "final_returns": last.get("rollout/ep_rew_mean"),
                "learning_curve": curve,
                "interrupted": result.interrupted,
                "autotune": None if tuned is None else tuned.as_dict(),
            }
        )
    words = options.run_words(result.path, env_id, chosen.imports)
    told = "".join(f", {name} {value}" for name, value in outcome(last))
    if result.interrupted and chosen.resume and not last:
        console.print(Text("Interrupted before it went on: the run is as it was.", "yellow"))
    else:
        final_words = spread_text(final, config.num_seeds) + told
        if whose is not None:
            final_words += f" of {whose}, the best"
        _say_what_next(console, result, words, final_words, config, curve)
    return SIGNALLED + (result.signal or signal.SIGINT) if result.interrupted else 0


def _ends(config: TrainConfig, returns: Any) -> tuple[str | None, Any]:
    """The returns at the end: of a population those of its best entry, and which that is."""
    if not config.population or returns is None:
        return None, returns
    entries = [[returns[index] for index in members] for members in config.entry_members]
    means = [(mean_and_spread(entry) or (-math.inf, 0.0))[0] for entry in entries]
    best = means.index(max(means))
    return config.entry_names[best], entries[best]


def _plot(result: Any, console: Console) -> Path | None:
    from kiloworlds.evaluation.plot import plot_run

    try:
        return plot_run(result)
    except InvalidValueError as error:  # too short for an episode to end: the run itself is fine
        console.print(Text(f"No picture of the learning curve: {error}", style="dim"))
        return None


def _say_what_next(
    console: Console, result: Any, words: str, final: str, config: TrainConfig, curve: Path | None
) -> None:
    from kiloworlds.training.algorithms import AGENTS

    meet = config.num_seeds > 1 and config.algorithm in AGENTS
    path = shlex.quote(str(result.path))
    spread = f", mean and deviation over {config.num_seeds} seeds" if config.num_seeds > 1 else ""
    if result.interrupted and not result.steps:
        console.print(Text("Interrupted before anything was learnt.", "yellow"))
        return
    if result.interrupted:
        how = f"Interrupted. Resume with: kiloworlds train --run-dir {path} --resume"
        console.print(Text(how, "yellow"), soft_wrap=True)
    console.print()
    for name, value in (
        ("run", path),
        (
            "final return",
            f"{final}{spread} (actions drawn as in training; eval takes the likeliest)",
        ),
        ("learning curve", curve),
        ("next", f"kiloworlds eval {words}"),
        ("", f"kiloworlds play {words}"),
        ("", f"kiloworlds crossplay {words}" if meet else None),
    ):
        if value is not None:
            console.print(Text(f"{name:<16}", "dim").append(str(value), "not dim"), soft_wrap=True)
