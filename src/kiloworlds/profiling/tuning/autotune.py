"""Choosing the settings that decide about speed, by measuring them on this machine."""

import dataclasses
import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

import kiloworlds
from kiloworlds.core import devices
from kiloworlds.core.checks import require_number
from kiloworlds.profiling import store
from kiloworlds.profiling.tuning import contest
from kiloworlds.profiling.tuning.arena import NO_TIME, Processes
from kiloworlds.profiling.tuning.candidates import (
    PLACEMENT,
    TUNED,
    Candidate,
    Kind,
    first,
    least_steps,
    variations,
)
from kiloworlds.profiling.tuning.contest import Entrant
from kiloworlds.profiling.tuning.process import TooLateError, TrialError
from kiloworlds.training.config import SURVIVAL, TrainConfig, build_config
from kiloworlds.training.placement import Split
from kiloworlds.training.presets import preset

DEFAULT_SECONDS = 45.0
SECONDS = (5.0, 3600.0)
"""The least and the most that it may be told to take."""
_FILE = "autotune"
_BEST = 2
"""So many of the fastest are varied."""

_BUILT, _COMPARED, _VARIED, _MEASURED = 0.6, 0.65, 0.9, 1.0
"""Shares of the time by which the first candidates are built and compared, their variations built, and
all measured."""

_LATEST = 1.2
"""Times the time: whatever is not over then is ended."""

_IRRELEVANT = SURVIVAL | {"seed", "total_steps"}
"""Settings that say nothing about speed."""


@dataclass(frozen=True)
class Tried:
    """One candidate.

    Attributes:
        settings: what it changes of what was asked for; {} for that itself.
        steps_per_second: None where it was not measured.
        note: why it was not measured; "" where it was.
        is_chosen: whether it was taken.
    """

    settings: dict[str, Any]
    steps_per_second: float | None
    note: str = ""
    is_chosen: bool = False


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and why.

    Attributes:
        settings: to be changed; {} where what was asked for is as fast as anything.
        speedup: steps per second with them over those without.
        why: sentences.
        tried: all candidates, the fastest first.
        seconds: that choosing took.
        measured: the date; of an earlier choice that is used again, its own.
        is_stored: whether it is an earlier choice.
        file: where it is kept; None if nowhere.
    """

    settings: dict[str, Any]
    speedup: float
    why: list[str]
    tried: list[Tried]
    seconds: float
    measured: str
    is_stored: bool = False
    file: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for programs and files."""
        return dataclasses.asdict(self)


def autotune(
    algorithm: str,
    env_id: str,
    *,
    seconds: float = DEFAULT_SECONDS,
    again: bool = False,
    imports: Sequence[str] = (),
    env_kwargs: dict[str, Any] | None = None,
    **overrides: Any,
) -> Tuned:
    """Measures which settings train fastest on this machine, and keeps the answer for next time.

    What may be chosen: devices and threads, for environments outside XLA the executor, its workers and
    its batch size, and the number of environments, with as many steps per update as before (`num_envs`
    * `num_steps` stays). Settings that are given stay as they are.

    Args:
        algorithm, env_id, env_kwargs: as `kiloworlds.train` takes them.
        seconds: to take, at most.
        again: whether to measure in any case; else an earlier answer serves.
        imports: modules that register the environment, as other processes measure.
        **overrides: settings that differ from the preset.

    Returns:
        The choice: `kiloworlds.train(algorithm, env_id, **overrides, **tuned.settings)` uses it.

    Raises:
        TrialError: what was asked for cannot be measured; too little time is no error.

    Example:
        >>> import kiloworlds as kw
        >>> tuned = kw.autotune("ppo", "CartPole-v1")  # doctest: +SKIP
        >>> run = kw.train("ppo", "CartPole-v1", **tuned.settings)  # doctest: +SKIP
    """
    settings = preset(algorithm, env_id) | overrides
    if env_kwargs:
        settings["env_kwargs"] = {**settings.get("env_kwargs", {}), **env_kwargs}
    config = build_config(algorithm, env_id, settings)
    return tune(config, overrides, seconds=seconds, again=again, imports=imports)


def tune(
    config: TrainConfig,
    given: Iterable[str],
    *,
    seconds: float = DEFAULT_SECONDS,
    again: bool = False,
    imports: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """The same for complete settings.

    Args:
        given: names of settings that must stay.
        say: hears what is being done.
    """
    require_number("seconds", seconds, *SECONDS)
    fixed, split = set(given) & set(TUNED), None
    if devices.is_initialised():  # too late for other devices and threads in this process
        fixed |= set(PLACEMENT)
        split = Split(len(jax.devices()), int(os.environ.get("PJRT_NPROC", 0)) or None)  # type: ignore[arg-type]
    key = _key(config, fixed, split)
    stored = None if again else store.read(_FILE, key)
    if stored is not None:
        tried = [Tried(**entry) for entry in stored.pop("tried")]
        return Tuned(**stored, tried=tried, is_stored=True, file=str(store.file(_FILE)))
    began = time.monotonic()
    processes = Processes(config, imports, split, began + _LATEST * seconds)
    try:
        kind, entrants, finalists = _contest(config, fixed, processes, began, seconds, say)
    except TooLateError:
        return _unmeasured([], time.monotonic() - began)
    finally:
        processes.close_all()
    chosen, taken = contest.choose(finalists), time.monotonic() - began
    tried = _tried(entrants, chosen)
    if chosen is None:
        return _unmeasured(tried, taken)
    tuned = _explain(config, kind, fixed, entrants, chosen, tried, taken)
    entry = {
        name: value for name, value in tuned.as_dict().items() if name not in ("is_stored", "file")
    }
    file = store.write(_FILE, key, entry)
    return dataclasses.replace(tuned, file=None if file is None else str(file))


def _contest(
    config: TrainConfig,
    fixed: set[str],
    processes: Processes,
    began: float,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[Kind, list[Entrant], list[Entrant]]:
    """Builds and times candidates: first where they run, then variations of the fastest.

    Returns:
        What runs the environment, all candidates, and those that were compared in the end.

    Raises:
        TooLateError: there was not even time to build what was asked for.
        TrialError: what was asked for cannot be measured.
    """
    kind = processes.describe()
    candidates = first(config, kind, fixed)
    say(f"builds {len(candidates)} ways to run it")
    entrants = processes.open(candidates, began + _BUILT * seconds)
    base = entrants[0]
    if base.failure == NO_TIME:
        raise TooLateError(NO_TIME)
    if base.failure:
        raise TrialError(
            f"{config.algorithm} on {config.env_id} cannot be measured: {base.failure} Settings may "
            "be chosen by hand; an environment of your own must be known to other processes: name its "
            "module with --import (imports=)."
        )
    ready = [entrant for entrant in entrants if not entrant.failure]
    best = contest.halve(ready, processes, began + _COMPARED * seconds, keep=_BEST)[:_BEST]
    varied = variations(config, kind, fixed, [entrant.candidate for entrant in best])
    untried = [one.candidate for one in entrants if one.failure == NO_TIME]
    entrants = [one for one in entrants if one.failure != NO_TIME]
    # Of compiled environments another place is worth more than another layout.
    more = [*untried, *varied] if kind.compiled else [*varied, *untried]
    known = {entrant.candidate for entrant in entrants}
    more = [candidate for candidate in dict.fromkeys(more) if candidate not in known]
    if more:
        say(f"builds {len(more)} more")
        entrants += processes.open(more, began + _VARIED * seconds, dares=True)
    finalists = [
        one
        for one in entrants
        if not one.failure and (one in best or one is base or one.candidate in more)
    ]
    for one in finalists:
        one.rounds = 0
    say(f"measures {len(finalists)} in turn")
    contest.halve(finalists, processes, began + _MEASURED * seconds)
    return kind, entrants, finalists


def _explain(
    config: TrainConfig,
    kind: Kind,
    fixed: set[str],
    entrants: list[Entrant],
    chosen: Entrant,
    tried: list[Tried],
    seconds: float,
) -> Tuned:
    base = entrants[0]
    speedup = chosen.rate / base.rate if base.rate else 1.0
    why = _reasons(config, kind, chosen.candidate, speedup)
    fastest = max(entrants, key=lambda one: (one.rounds, one.rate))
    if fastest is not chosen and fastest.rate > chosen.rate:
        why.append(
            f"The fastest was {fastest.rate / chosen.rate - 1:.1%} faster: too little to change more "
            f"(placement must gain {contest.WORTH - 1:.0%}, what changes learning "
            f"{contest.WORTH_LEARNING - 1:.0%})."
        )
    if fixed:
        why.append(f"Given, and so left alone: {', '.join(sorted(fixed))}.")
    return Tuned(chosen.candidate.settings, speedup, why, tried, seconds, _today())


def _tried(entrants: list[Entrant], chosen: Entrant | None) -> list[Tried]:
    return [
        Tried(
            one.candidate.settings,
            one.rate or None,
            one.failure if not one.rate else "",
            one is chosen,
        )
        for one in sorted(entrants, key=lambda one: -one.rate)
    ]


def _unmeasured(tried: list[Tried], seconds: float) -> Tuned:
    """Nothing was measured in time."""
    why = [
        f"Nothing was measured in {seconds:.0f} s: settings stay as they are; allow more seconds."
    ]
    return Tuned({}, 1.0, why, tried, seconds, _today())


def _today() -> str:
    return time.strftime("%Y-%m-%d")


def _reasons(config: TrainConfig, kind: Kind, chosen: Candidate, speedup: float) -> list[str]:
    """What was chosen and what it means, in sentences."""
    what = "training" if kind.compiled else "collecting rollouts"
    if not chosen.changes:
        least = contest.WORTH - 1
        return [f"Settings stay as they are: nothing tried makes {what} {least:.0%} faster."]
    settings = chosen.settings
    told = ", ".join(f"{name}={value}" for name, value in settings.items())
    why = [f"{told}: {what} is {speedup:.2f} times as fast."]
    if "num_envs" in settings:
        steps = settings["num_steps"]
        why.append(
            f"This changes a little what is learnt: {settings['num_envs']} environments take "
            f"{steps} steps each per update in place of {config.num_envs} that take "
            f"{config.settings.num_steps}. As many steps per update, minibatches as large; advantages "
            f"look at most {steps} steps ahead before they rely on the value function (no fewer than "
            f"{least_steps(config)} were tried). --num-envs {config.num_envs} keeps it as it was."
        )
    if "batch_size" in settings:
        why.append(
            "With batch_size environments go each at its own pace: such a run does not repeat by "
            f"itself, only with --replay-order. --batch-size {config.num_envs} keeps them together."
        )
    if (settings.get("devices") or 1) > 1 and config.num_members % settings["devices"]:
        why.append(
            "The devices share the environments, and each draws its part of a minibatch from its own. "
            "Give --devices 1 where that matters."
        )
    if settings.get("backend") == "sync":
        why.append(
            "In this process an environment that crashes ends the training; in workers "
            "(--backend process) it costs an episode."
        )
    if not chosen.changes_learning:
        why.append("What is learnt stays the same, but for the rounding of sums.")
    return why


def _key(config: TrainConfig, fixed: set[str], split: Split | None) -> str:
    """Names all on which the answer depends: what is trained, how, with what and on what."""
    settings = {name: value for name, value in config.as_dict().items() if name not in _IRRELEVANT}
    facts = json.dumps([settings, sorted(fixed), split], sort_keys=True, default=str)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
    accelerators = len(glob.glob("/dev/nvidia[0-9]*"))
    return store.machine_key(
        os.environ.get("JAX_PLATFORMS") or f"{accelerators} accelerators",
        f"kiloworlds {kiloworlds.__version__}",
        f"jax {jax.__version__}",
        config.algorithm,
        config.env_id,
        digest,
    )
