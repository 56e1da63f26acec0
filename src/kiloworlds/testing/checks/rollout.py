"""One long rollout of random actions, watched by many probes."""

import pickle
import reprlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.players import InterfaceError, Transition, labelled
from kiloworlds.testing.checks.values import (
    arrays,
    difference,
    not_finite,
    shares_memory,
    why_outside,
)
from kiloworlds.testing.failures import described
from kiloworlds.testing.report import Finding, Result

_REMEMBERED = 16  # transitions whose observations are watched for later changes
_PICKLED_FIRST, _PICKLED_EVERY = 50, 50  # pickling every info would take longer than many a step
_HUGE_INFO = 16 * 1024  # bytes: from here on sending it costs more than a small step


def check_rollout(context: Context) -> Iterator[Finding]:
    """Steps on and on, over the ends of episodes."""
    env = context.make()
    player, time_is_up = context.player(env), context.clock()
    limit = _time_limit(env)
    probes: list[Probe] = [
        Observations(),
        Types(),
        Finite(),
        Rewards(),
        Aliasing(),
        Actions(),
        Flags(),
        Infos(),
        Endings(limit),
    ]
    taken, raised, call = 0, None, "reset"
    try:
        transition = player.reset(context.seed)
        while True:
            for probe in probes:
                probe.see(taken, transition)
            if taken == context.steps or time_is_up():
                break
            if transition.over:
                call = "the reset after an end"
                transition = player.reset()
            else:
                call = f"step {taken + 1}"
                transition = player.step()
                taken += 1
    except InterfaceError as error:
        raised = Finding("rollout", "failed", f"{call}: {error.seen}", error.mend)
    except Exception as error:  # of the environment
        raised = Finding("rollout", "failed", f"{call} raised {described(error)}")
    yield raised or Finding("rollout", "ok", f"{taken:,} steps of random actions")
    for probe in probes:
        yield from probe.findings(taken)


def _time_limit(env: Any) -> int | None:
    return getattr(getattr(env, "spec", None), "max_episode_steps", None)


class Probe(ABC):
    """Looks at every transition and remembers the first problem."""

    name: str
    fine: str
    mend = ""
    result: Result = "failed"

    def __init__(self) -> None:
        self._first, self._count = "", 0

    def see(self, taken: int, transition: Transition) -> None:
        """Takes one transition, after `taken` steps of the rollout."""
        problem = self.problem(transition)
        if problem is None:
            return
        self._count += 1
        if not self._first:
            when = f"step {taken}" if transition.step else "reset"
            after = f" after step {taken}" if taken and not transition.step else ""
            self._first = f"{when}{after}: {problem}"

    @abstractmethod
    def problem(self, transition: Transition) -> str | None:
        """What is wrong with a transition, or None."""

    def findings(self, taken: int) -> Iterator[Finding]:
        """What was found in `taken` steps."""
        if not self._first:
            yield Finding(self.name, "ok", self.fine)
            return
        times = f" ({self._count} times in {taken} steps)" if self._count > 1 else ""
        yield Finding(self.name, self.result, self._first + times, self.mend)


class Observations(Probe):
    """Are they in their space?"""

    name, fine = "observations", "lie in their space"
    mend = (
        "mend the observation, or the bounds, shape and dtype of observation_space; nothing is cast"
    )

    def problem(self, transition):
        for agent, observation in transition.observations.items():
            space = transition.spaces[agent]
            reason = why_outside(space, observation, labelled("observation", agent))
            if reason is not None:
                return reason
        return None


class Types(Probe):
    """Do shape and type of each array stay the same?"""

    name, fine = "types", "shape and dtype of observations never change"
    mend = "give the array its dtype where it is made, such as np.zeros(4, np.float32)"

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, tuple] = {}

    def problem(self, transition):
        for agent, observation in transition.observations.items():
            for path, leaf in arrays(observation, labelled("observation", agent)):
                if not isinstance(leaf, np.ndarray | np.generic):
                    continue
                now = (str(leaf.dtype), leaf.shape)
                before = self._known.setdefault(path, now)
                if now != before:
                    return f"{path} is {now[0]} {now[1]}, and was {before[0]} {before[1]}"
        return None


class Finite(Probe):
    """NaN and infinity."""

    name, fine = "finite", "no NaN and no infinity in observations and rewards"
    mend = "one NaN spoils a whole training; look for a division by zero or a diverging simulation"

    def problem(self, transition):
        for word, values in (
            ("observation", transition.observations),
            ("reward", transition.rewards),
        ):
            for agent, value in values.items():
                reason = not_finite(value, labelled(word, agent))
                if reason is not None:
                    return reason
        return None


class Rewards(Probe):
    """Is each one number?"""

    name, fine = "rewards", "are numbers"
    mend = "return float(reward)"

    def __init__(self) -> None:
        super().__init__()
        self._low, self._high = np.inf, -np.inf

    def problem(self, transition):
        for agent, reward in transition.rewards.items():
            if not isinstance(reward, int | float | np.number | np.bool_) or isinstance(
                reward, complex | np.complexfloating
            ):
                what = f"{type(reward).__name__} {reprlib.repr(reward)}"
                return f"{labelled('reward', agent)} is {what}"
            if transition.step:
                self._low, self._high = min(self._low, reward), max(self._high, reward)
        return None

    def findings(self, taken):
        if not self._first and self._low <= self._high:
            yield Finding("rewards", "ok", f"numbers from {self._low:g} to {self._high:g}")
            return
        yield from super().findings(taken)


class Aliasing(Probe):
    """Does a step change what an earlier one returned?"""

    name, fine = "aliasing", "each observation is its own"
    mend = "return a copy: observation.copy()"

    def __init__(self) -> None:
        super().__init__()
        self._earlier: deque[tuple[Any, Any]] = deque(maxlen=_REMEMBERED)
        self._shared = False

    def problem(self, transition):
        now = transition.copy()
        found = None
        for returned, as_it_was in self._earlier:
            changed = difference(as_it_was, returned, "observation")
            if changed is not None:
                found = "changed an observation returned earlier"
                break
            self._shared |= shares_memory(returned, transition.observations)
        self._earlier.append((transition.observations, now.observations))
        if found:
            self._earlier.clear()
        return found

    def findings(self, taken):
        if not self._first and self._shared:
            yield Finding(
                "aliasing",
                "warning",
                "observations share memory, though none was seen to change",
                self.mend,
            )
            return
        yield from super().findings(taken)


class Actions(Probe):
    """Does the environment leave its caller's actions as they are?"""

    name, fine = "actions", "sampled actions are accepted and left as they are"
    mend = "copy the action before changing it: action = action.copy()"

    def problem(self, transition):
        changed = difference(transition.actions_given, transition.actions, "action")
        return None if changed is None else f"step changed its {changed.replace('[None]', '')}"


class Flags(Probe):
    """Are terminated and truncated truth values?"""

    name, fine = "flags", "terminated and truncated are truth values"
    mend = "return bool(terminated), bool(truncated)"

    def problem(self, transition):
        for word, flags in (
            ("terminated", transition.terminated),
            ("truncated", transition.truncated),
        ):
            for agent, flag in flags.items():
                if not isinstance(flag, bool | np.bool_):
                    what = f"{type(flag).__name__} {reprlib.repr(flag)}"
                    return f"{labelled(word, agent)} is {what}"
        return None


class Infos(Probe):
    """Can infos be sent between processes, at what cost?"""

    name, fine = "infos", "small"
    mend = "kiloworlds' workers pickle what is no number; leave out what the training does not read"
    result: Result = "warning"

    def __init__(self) -> None:
        super().__init__()
        self._seen, self._unsendable = 0, ""
        self._numbers, self._others = False, set()

    def problem(self, transition):
        self._seen += 1
        if self._seen > _PICKLED_FIRST and self._seen % _PICKLED_EVERY:
            return None
        for agent, info in transition.infos.items():
            sizes = {}
            for key, value in (info if isinstance(info, dict) else {"": info}).items():
                if isinstance(value, bool | int | float | np.bool_ | np.number):
                    self._numbers = True
                    continue
                self._others.add(str(key))
                try:
                    sizes[key] = len(pickle.dumps(value))
                except Exception as error:  # whatever objects raise that cannot be pickled
                    self._unsendable = (
                        f"{labelled('info', agent)}[{key!r}] cannot be pickled: {described(error)}"
                    )
            if sum(sizes.values()) > _HUGE_INFO:
                largest = max(sizes, key=lambda key: sizes[key])
                return (
                    f"{labelled('info', agent)} takes {sum(sizes.values()) / 1024:,.0f} KiB pickled, "
                    f"most of it {largest!r}"
                )
        return None

    def findings(self, taken):
        if self._unsendable:
            yield Finding(
                "infos",
                "failed",
                self._unsendable,
                "put arrays and numbers into infos, not objects",
            )
        elif self._first:
            yield from super().findings(taken)
        elif self._others:
            names = ", ".join(sorted(self._others)[:4])
            yield Finding("infos", "ok", f"small; pickled on the way from workers: {names}")
        elif self._numbers:
            yield Finding("infos", "ok", "numbers only, which workers pass in shared memory")
        else:
            yield Finding("infos", "ok", "empty")


class Endings(Probe):
    """Do episodes end, and is it clear how?"""

    name, fine = "episode end", ""

    def __init__(self, limit: int | None):
        super().__init__()
        self._limit = limit
        self._lengths: list[int] = []
        self._terminated = self._truncated = self._both = 0
        self._ended: set[str] = set()

    def problem(self, transition):
        if not transition.step:
            self._ended = set()
        for word in ("terminated", "truncated"):
            if any(bool(np.any(flag)) for flag in getattr(transition, word).values()):
                self._ended.add(word)
        if transition.over:
            self._lengths.append(transition.step)
            self._terminated += "terminated" in self._ended
            self._truncated += "truncated" in self._ended
            self._both += len(self._ended) == 2

    def findings(self, taken):
        if not self._lengths:
            if self._limit is not None:
                yield Finding(
                    self.name, "ok", f"none in {taken:,} steps; a time limit is set, {self._limit}"
                )
                return
            yield Finding(
                self.name,
                "warning",
                f"no episode ended in {taken:,} steps of random actions, and there is no time limit",
                "wrap it in gymnasium.wrappers.TimeLimit, or register it with max_episode_steps",
            )
            return
        lengths = sorted(set(self._lengths))
        span = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        count = len(self._lengths)
        yield Finding(
            self.name,
            "ok",
            f"{count} episode{'s' if count > 1 else ''} of {span} steps: {self._terminated} "
            f"terminated, {self._truncated} truncated",
        )
        if self._both == count:
            yield Finding(
                self.name,
                "warning",
                "terminated and truncated always come together",
                "terminated: the task itself ended; truncated: it was cut off, and the future still "
                "counts. Learning treats them differently",
            )
