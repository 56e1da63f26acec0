"""`kiloworlds.train`: from an environment's id to a run."""

import contextlib
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.loggers import choice
from kiloworlds.training.loggers.base import LoggedRun
from kiloworlds.training.loggers.feed import Loggers
from kiloworlds.training.loops.arrival_order import Playback, Recording
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.make_training import make_training
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.presets import preset
from kiloworlds.training.report import Row
from kiloworlds.training.resume import Changes, check_changes, check_repetition, in_words
from kiloworlds.training.run import Run, load
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.arrivals_file import ArrivalsFile, read_arrivals
from kiloworlds.training.storage.checkpoint import Checkpoint, NoCheckpointError
from kiloworlds.training.storage.metrics_file import NOTHING
from kiloworlds.training.storage.run_directory import (
    create_run_directory,
    environment_facts,
    versions,
)
from kiloworlds.training.storage.run_files import RunFiles, Say, say_on_stderr
from kiloworlds.training.survival.interrupts import InterruptedEarlyError, interrupts
from kiloworlds.training.survival.lifeline import Lifeline
from kiloworlds.training.survival.supervisor import die_with
from kiloworlds.training.trainer import Trainer


def _nothing(*_: Any) -> None:
    """Where nobody listens."""


def train(
    algorithm: str,
    env_id: str,
    *,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    override: bool = False,
    replay_order: str | os.PathLike | None = None,
    env_kwargs: dict[str, Any] | None = None,
    log: str | Sequence[str] | None = None,
    on_start: Callable[[Path, TrainConfig], None] = _nothing,
    on_metrics: Callable[[Row], None] = _nothing,
    **overrides: Any,
) -> Run:
    """Trains an agent; settings not given come from the preset of the environment.

    Args:
        algorithm: "ppo" for one agent; for several "ippo", "mappo", "iql", "vdn", "qmix" or "pqn_vdn".
        env_id: what to train on.
        run_dir: where the run is kept; `runs/<algorithm>/<env_id>_<n>` if None. A directory that
            holds a run is left alone and a new name taken.
        resume: whether to go on with the run in `run_dir` from its newest checkpoint, as if it had never
            stopped. Settings not given are the run's. Those that would make it another training must
            not differ; how long, on how many devices and how safely it trains may, and the number of
            environments too.
        override: whether any setting may differ.
        replay_order: a run whose environments went each at its own pace (`batch_size`), to be repeated
            exactly: results of environments are taken in the order in which they arrived then.
        env_kwargs: parameters of the environment.
        log: trackers that get the metrics too: "tensorboard", "wandb", "mlflow", "trackio". A run that
            is resumed goes on with those it had; `()` ends that.
        on_start: called with the run's path and settings before the first step.
        on_metrics: called with every metric row as it is written.
        **overrides: any field of `TrainConfig` or of the algorithm's configuration, such as
            `total_steps`, `num_seeds`, `learning_rate`.

    If JAX has not been used yet in this process, it is set up to suit the training (see
    `kiloworlds.training.placement.configure_devices`).

    Returns:
        The run. Ctrl-C ends training early but cleanly: the run is then usable and
        `run.interrupted` is True.

    Raises:
        UnknownNameError: an algorithm, environment or setting that does not exist.
        InvalidValueError: a value out of range.
        RunDirectoryError: `run_dir` cannot be written; or there is no run, or no checkpoint, to go on
            with.
        DivergedError: the losses are not finite any more.
        MissingDependencyError: the package of a tracker is not installed.

    Example:
        >>> import kiloworlds as kw
        >>> run = kw.train("ppo", "CartPole-v1", num_seeds=8)  # doctest: +SKIP
        >>> run.evaluate(episodes=100).mean_return  # doctest: +SKIP
    """
    old = _opened(run_dir) if resume else None
    if old is None and replay_order is not None:
        old = load(replay_order)
    if old is not None:
        settings = {**(old.config if resume else old.settings_at(0)), **overrides}
        del settings["algorithm"], settings["env_id"]
    else:
        settings = {**(preset(algorithm, env_id) if isinstance(env_id, str) else {}), **overrides}
    if env_kwargs:
        settings["env_kwargs"] = {**settings.get("env_kwargs", {}), **env_kwargs}
    return train_config(
        build_config(algorithm, env_id, settings),
        run_dir=run_dir,
        resume=resume,
        override=override,
        replay_order=replay_order,
        log=log,
        on_start=on_start,
        on_metrics=on_metrics,
    )


def train_config(
    config: TrainConfig,
    *,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    override: bool = False,
    replay_order: str | os.PathLike | None = None,
    log: str | Sequence[str] | None = None,
    on_start: Callable[[Path, TrainConfig], None] = _nothing,
    on_metrics: Callable[[Row], None] = _nothing,
    on_progress: Callable[[Row], None] = _nothing,
    stop: Callable[[], bool] = lambda: False,
    say: Say = say_on_stderr,
) -> Run:
    """Trains with complete settings; see `train`.

    Args:
        resume, override, replay_order, log: see `train`.
        on_progress: see `Trainer`.
        stop: training ends early, as after Ctrl-C, once it says so.
        say: hears in a sentence what goes wrong, and that it is over.
    """
    configure_devices(config)
    old = _opened(run_dir) if resume else None
    changes = check_changes(old.config, config.as_dict(), override) if old else {}
    logged = choice.choose(log, old.path if old else None)
    playback = None if replay_order is None else _playback(Path(replay_order), config, resume)
    training = make_training(config)
    try:
        path = old.path if old else create_run_directory(config, run_dir)
        facts = old.environment if old else environment_facts(config, training.backend)
        more = {} if logged is None else {choice.NAME: logged.text()}
        files = RunFiles(path, config, facts, say, more)
        if old is None:
            files.write_settings()
        lifeline = Lifeline.given()
        crashed = lifeline is not None and lifeline.path is not None
        if lifeline is not None:
            die_with(lifeline.supervisor)
            lifeline.path = path
            pool = getattr(training, "pool", None)
            if pool is not None:  # waiting for workers that are started again is no hanging
                pool.while_short_handed(lifeline.beat_again)
        until = None if playback is None else playback.num_updates
        loggers = Loggers(() if logged is None else logged.names, say)

        def on_row(row: Row) -> None:
            loggers.log(row)
            on_metrics(row)

        trainer = Trainer(config, training, files, on_row, on_progress, lifeline, until)
        on_start(path, config)
        for words in in_words(changes):
            say(words)
        with interrupts() as interrupt, loggers:
            try:
                with contextlib.suppress(InterruptedEarlyError):
                    checkpoint = None if old is None else _newest(files, lifeline, crashed)
                    if isinstance(training, HostTraining) and training.streamed is not None:
                        training.streamed.order = playback or _recording(files, config, checkpoint)
                    _begin(trainer, files, checkpoint, changes, interrupt.is_set)
                    if logged is not None:
                        step = trainer.done * config.steps_per_update
                        loggers.start(
                            LoggedRun(
                                path,
                                logged.identity,
                                config.as_dict(),
                                step,
                                config.num_members,
                                config.member_settings,
                            )
                        )
                    trainer.run(lambda: interrupt.is_set() or stop())
            finally:  # whatever ends training, what was learnt is kept
                interrupted = trainer.is_interrupted
                path = files.finish(trainer.last_snapshot())
                trainer.close()
            if playback is not None and not interrupted:
                say(f"all {playback.num_updates} rollouts were as in {str(replay_order)!r}.")
    finally:
        training.close()
    run = load(path)
    run.interrupted, run.signal = interrupted, interrupt.signal
    return run


def _playback(path: Path, config: TrainConfig, resume: bool) -> Playback:
    """The order of arrivals of a run, which these settings repeat."""
    if resume:
        raise InvalidValueError(
            "replay_order repeats a run from its start: resume=True is not for it."
        )
    run = load(path)
    check_repetition(run.settings_at(0), config.as_dict())
    playback = Playback(read_arrivals(path))
    if not playback.num_updates:
        raise RunDirectoryError(f"{str(path)!r} recorded no whole rollout that could be repeated.")
    return playback


def _recording(files: RunFiles, config: TrainConfig, checkpoint: Checkpoint | None) -> Recording:
    """Keeps the order in which results of environments arrive."""
    first = 0 if checkpoint is None else checkpoint.step // config.steps_per_update
    try:
        return Recording(ArrivalsFile(files.path, first), files.say)
    except OSError as error:  # RunDirectoryError among them
        files.say(
            f"{error} The order of arrivals is not recorded: the run cannot be repeated exactly."
        )
        return Recording()


def _opened(run_dir: str | os.PathLike | None) -> Run:
    if run_dir is None:
        raise InvalidValueError("resume=True goes on with the run in run_dir: say which.")
    return load(run_dir)


def _newest(files: RunFiles, lifeline: Lifeline | None, crashed: bool) -> Checkpoint | None:
    """The newest state there is: what a supervisor has in memory, or a checkpoint. None where a
    supervised trainer crashed before it had any, and nowhere else."""
    in_memory = None if lifeline is None else lifeline.newest()
    steps = files.store.steps()
    if in_memory is not None and in_memory.step >= max(steps, default=0):
        return in_memory
    if crashed and not steps:
        files.metrics.cut_back(NOTHING)
        return None
    if not steps:
        config = shlex.quote(str(files.path / "config.yaml"))
        raise NoCheckpointError(
            f"{str(files.path / 'checkpoints')!r} holds no checkpoint: the run ended before its first "
            f"one. To train from the start with its settings: kiloworlds train --config {config}"
        )
    return files.store.load_newest(files.say)


def _begin(
    trainer: Trainer,
    files: RunFiles,
    checkpoint: Checkpoint | None,
    changes: Changes,
    stop: Callable[[], bool],
) -> None:
    """Compiles, and has the first state."""
    if checkpoint is None:
        trainer.start(stop)
        return
    is_saved = checkpoint.step in files.store.steps()
    if is_saved and checkpoint.step >= trainer.config.num_updates * trainer.config.steps_per_update:
        raise InvalidValueError(
            f"the run has all its {checkpoint.step} steps, and total_steps="
            f"{trainer.config.total_steps} asks for no more; it goes on with total_steps="
            f"{checkpoint.step + trainer.config.steps_per_update} or more."
        )
    trainer.go_on(checkpoint, stop, is_saved)
    files.renew_settings()  # not before it is known that the run goes on with them
    files.event("resumed", step=checkpoint.step, settings=changes, versions=versions())
    files.say(f"goes on from step {checkpoint.step:,}.")
