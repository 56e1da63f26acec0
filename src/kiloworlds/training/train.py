"""`kiloworlds.train`: from an environment's id to a run."""

import contextlib
import inspect
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kiloworlds.core.errors import InvalidValueError, KiloworldsError
from kiloworlds.core.registry import find_spec
from kiloworlds.training.algorithms import fused_training, host_training
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.fused_loop import CHUNK, Episodes, FusedLoop, UpdateMetrics
from kiloworlds.training.host import HostTraining
from kiloworlds.training.host_agents import HostAgentsTraining
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.presets import preset
from kiloworlds.training.run import (
    MetricsWriter,
    Run,
    create_run_directory,
    save_checkpoint,
    write_environment,
)
from kiloworlds.vector.choice import host_backend
from kiloworlds.vector.make import gymnasium_factory, make, native_engine
from kiloworlds.vector.pettingzoo.adapters import Adapting
from kiloworlds.vector.pettingzoo.ids import PREFIX as PETTINGZOO_PREFIX
from kiloworlds.vector.pettingzoo.ids import pettingzoo_factory
from kiloworlds.vector.pixels import pixel_options, preprocess

WINDOW = 100
"""Episodes over which `rollout/ep_rew_mean` is taken."""

_ROWS = 100
"""Rows of metrics of a training, at least, so that the same training gives the same rows."""

_LONGEST_ROW = 10.0
"""Seconds; only where a row takes longer do rows depend on the machine's speed."""


def train(
    algorithm: str,
    env_id: str,
    *,
    run_dir: str | os.PathLike | None = None,
    env_kwargs: dict[str, Any] | None = None,
    on_start: Callable[[Path, TrainConfig], None] | None = None,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
    **overrides: Any,
) -> Run:
    """Trains an agent; settings not given come from the preset of the environment.

    Args:
        algorithm: "ppo" for one agent; for several "ippo", "mappo", "iql", "vdn", "qmix" or "pqn_vdn".
        env_id: what to train on.
        run_dir: where the run is kept; `runs/<algorithm>/<env_id>_<n>` if None. A directory that
            holds a run is left alone and a new name taken.
        env_kwargs: parameters of the environment.
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
        RunDirectoryError: `run_dir` cannot be written.
        DivergedError: the losses are not finite any more.

    Example:
        >>> import kiloworlds as kw
        >>> run = kw.train("ppo", "CartPole-v1", num_seeds=8)  # doctest: +SKIP
        >>> run.evaluate(episodes=100).mean_return  # doctest: +SKIP
    """
    settings = {**(preset(algorithm, env_id) if isinstance(env_id, str) else {}), **overrides}
    if env_kwargs:
        settings["env_kwargs"] = {**settings.get("env_kwargs", {}), **env_kwargs}
    config = build_config(algorithm, env_id, settings)
    return train_config(config, run_dir=run_dir, on_start=on_start, on_metrics=on_metrics)


def make_training(config: TrainConfig) -> FusedLoop | HostTraining | HostAgentsTraining:
    """The loop that fits the environment: fused for compiled ones, else on the host."""
    _check_env_kwargs(config.env_kwargs)
    spec = find_spec(config.env_id)
    if spec is not None and config.backend in ("auto", "compiled"):
        for name in ("batch_size", "max_staleness", "preprocessing"):
            if getattr(config, name):
                raise InvalidValueError(
                    f"{name}={getattr(config, name)!r} is for environments outside XLA, and "
                    f"{config.env_id} is compiled: leave it out, or choose backend='process'."
                )
        reference = spec.build_reference(**config.env_kwargs)
        return fused_training(config, spec.build(**config.env_kwargs), reference)
    backend = _host_backend(config) if config.backend == "auto" else config.backend
    options: dict[str, Any] = {}
    if backend in ("process", "thread"):  # a fault costs an episode, not the training
        options = {
            "num_workers": config.num_workers,
            "batch_size": config.batch_size,
            "step_timeout": config.step_timeout,
            "max_restarts": config.max_restarts,
            "max_worker_memory": config.max_worker_memory,
            "on_error": "restart",
            "on_nonfinite": config.on_nonfinite,
        }
    elif backend == "native":
        options = {"num_workers": config.num_workers}
    envs = make(
        config.env_id,
        config.num_envs,
        backend=backend,  # type: ignore[arg-type]
        preprocessing=config.preprocessing,  # type: ignore[arg-type]
        **options,
        **config.env_kwargs,
    )
    try:
        return host_training(config, envs)
    except BaseException:
        envs.close()
        raise


def _host_backend(config: TrainConfig) -> str:
    """The fastest executor for an environment that is not compiled."""
    asks_for_pool = config.batch_size is not None  # each environment at its own pace
    if not asks_for_pool and native_engine(config.env_id, config.preprocessing, config.env_kwargs):
        return "native"
    if asks_for_pool or config.num_workers is not None:
        return "process"
    if config.env_id.startswith(PETTINGZOO_PREFIX):
        build = Adapting(pettingzoo_factory(config.env_id, **config.env_kwargs), None)
        return host_backend(config.num_envs, build)
    make_env = gymnasium_factory(config.env_id, config.env_kwargs)
    if config.preprocessing is not None:
        make_env = preprocess(make_env, pixel_options(config.preprocessing))
    return host_backend(config.num_envs, make_env)


def _check_env_kwargs(env_kwargs: dict[str, Any]) -> None:
    for name in inspect.signature(make).parameters:
        if name in env_kwargs and name != "env_kwargs":
            raise InvalidValueError(
                f"{name!r} is no parameter of the environment: it is a setting of the training, or "
                "chosen by it."
            )


def train_config(
    config: TrainConfig,
    *,
    run_dir: str | os.PathLike | None = None,
    on_start: Callable[[Path, TrainConfig], None] | None = None,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Trains with complete settings; see `train`."""
    configure_devices(config)
    training = make_training(config)
    path = create_run_directory(config, run_dir)
    write_environment(path, config, training.backend)
    if on_start is not None:
        on_start(path, config)
    # Orbax takes a second to import: it does so while the first updates run.
    importer = threading.Thread(target=__import__, args=("orbax.checkpoint",), daemon=True)
    importer.start()
    report = _Report(config)
    writer = MetricsWriter(path)
    interrupted = False
    with _interrupts() as interrupt:
        done = 0
        per_row = int(np.clip(config.num_updates // _ROWS, 1, CHUNK))
        try:
            state = training.init()
            while done < config.num_updates and not interrupt.is_set():
                count = min(per_row, config.num_updates - done)
                began = time.perf_counter()

                def stop(began: float = began) -> bool:
                    return interrupt.is_set() or time.perf_counter() - began > _LONGEST_ROW

                state, metrics = training.run(state, count, stop)  # type: ignore[arg-type]
                compiling, done = done == 0, done + metrics.episodes.ended.shape[1]
                row = report.row(done, metrics, compiling) | training.host_metrics()
                writer.write(row)
                if on_metrics is not None:
                    on_metrics(row)
                _check_finite(row)
                if not compiling and time.perf_counter() - began > _LONGEST_ROW:
                    per_row = max(1, per_row // 2)
        finally:  # whatever ends training, what was learnt is kept
            interrupted = done < config.num_updates
            importer.join()
            if done:
                save_checkpoint(path, done * config.steps_per_update, training.learner(state))  # type: ignore[arg-type]
            writer.close()
            training.close()
    return Run(path, interrupted=interrupted)


class DivergedError(KiloworldsError, ArithmeticError):
    """Training produced numbers that are not finite, and cannot recover."""


def _check_finite(row: dict[str, Any]) -> None:
    """Stops a training none of whose seeds has finite losses any more."""
    bad = [
        name
        for name, values in row.items()
        if name.startswith("train/") and not any(value is not None for value in values)
    ]
    if bad:
        raise DivergedError(
            f"training diverged: {', '.join(sorted(bad))} not finite at step {row['step']}. A lower "
            "learning_rate or normalize_observations and normalize_rewards usually help; NaN from "
            "the environment does this too. What was learnt until here is in the run."
        )


class _Report:
    """Turns the metrics of updates into rows."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._began = time.perf_counter()
        self._last = self._began
        self._collected = 0
        """Updates whose steps were collected while the program compiled, and are in no row yet."""
        self._recent: deque[Episodes] = deque()

    def row(self, done: int, metrics: UpdateMetrics, compiling: bool) -> dict[str, Any]:
        """One row: counters, episode statistics over the last WINDOW episodes, mean metrics."""
        config = self._config
        now = time.perf_counter()
        updates = metrics.episodes.ended.shape[1]
        per_update = config.steps_per_update * config.num_seeds
        elapsed, self._last = now - self._last, now
        timed = updates - min(updates, self._collected)
        # A row that includes compilation has no meaningful speed, nor steps taken meanwhile.
        self._collected = config.max_staleness if compiling else self._collected - updates + timed
        self._remember(metrics)
        sums = jax.tree.map(lambda *columns: np.sum(columns, axis=0), *self._recent)
        episodes = sums.ended
        return {
            "step": done * config.steps_per_update,
            "seconds": round(now - self._began, 4),
            "fps": None if compiling or not timed else round(timed * per_update / elapsed, 1),
            "rollout/ep_rew_mean": _ratio(sums.return_sum, episodes),
            "rollout/ep_len_mean": _ratio(sums.length_sum, episodes),
            **{f"rollout/{name}": _ratio(total, episodes) for name, total in sums.others.items()},
            "rollout/episodes": [int(count) for count in metrics.episodes.ended.sum(axis=1)],
            **{
                f"train/{name}": [_number(value) for value in values.mean(axis=1)]
                for name, values in metrics.train.items()
            },
        }

    def _remember(self, metrics: UpdateMetrics) -> None:
        """Keeps the newest updates that together saw WINDOW episodes for every seed."""
        for index in range(metrics.episodes.ended.shape[1]):
            self._recent.append(jax.tree.map(lambda sums: sums[:, index], metrics.episodes))  # noqa: B023
        total = np.sum([row.ended for row in self._recent], axis=0)
        while np.all(total - self._recent[0].ended >= WINDOW):
            total = total - self._recent.popleft().ended


def _number(value: Any) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _ratio(sums: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [
        _number(total / count) if count else None for total, count in zip(sums, counts, strict=True)
    ]


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or SIGTERM into an event that ends training cleanly; a second one is
    immediate."""
    interrupt = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread may handle signals
        return

    def handle(number, frame):
        interrupt.set()
        restore()

    def restore():
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        restore()
