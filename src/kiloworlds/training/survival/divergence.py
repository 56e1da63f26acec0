"""What to do about updates whose numbers are not finite."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.guard import FIELDS, Fault

_PATIENCE = 10
"""Updates in a row after which skipping them does not help."""

_WAYS_BACK = 3
"""How often a seed goes back before it is given up."""


_COUNTED = ("streak", "ways_back", "given_up")


class DivergedError(KiloworldsError, ArithmeticError):
    """Training produced numbers that are not finite, and cannot recover."""


class Divergence:
    """Watches the updates of all seeds, and decides which must go back.

    Args:
        config: the settings.
        tell: is told of what happens: in words, and as facts.
    """

    def __init__(self, config: TrainConfig, tell: Callable[..., None]):
        self._config, self._tell = config, tell
        self._streak = np.zeros(config.num_members, int)
        self._ways_back = np.zeros(config.num_members, int)
        self._given_up = np.zeros(config.num_members, bool)

    def watch(self, fault: Fault, done: int) -> list[int]:
        """Looks at some updates.

        Args:
            fault: of each, `[S, U]`.
            done: updates before them.

        Returns:
            The seeds that must go back.

        Raises:
            DivergedError: training must stop: because settings say so, or no seed can go on.
        """
        if not fault.field.any():
            self._streak[:] = 0
            return []
        back = []
        for seed, fields in enumerate(fault.field):
            bad = np.flatnonzero(fields)
            if bad.size and not self._streak[seed]:
                self._tell_of(fault, seed, int(bad[0]), done)
            good = np.flatnonzero(fields == 0)
            tail = len(fields) - 1 - good[-1] if good.size else len(fields)
            self._streak[seed] = tail if good.size else self._streak[seed] + tail
            if self._streak[seed] >= _PATIENCE and not self._given_up[seed]:
                self._streak[seed] = 0
                back.append(seed)
        return self._allowed(back, done)

    def _tell_of(self, fault: Fault, seed: int, update: int, done: int) -> None:
        field = FIELDS[fault.field[seed, update] - 1]
        facts: dict[str, Any] = {"update": done + update, "seed": self._config.member(seed)[1]}
        if self._config.population:
            facts["member"] = seed
        words = f"of update {done + update}"
        if field != "learner":
            facts |= {
                "environment": int(fault.environment[seed, update]),
                "step": int(fault.step[seed, update]),
            }
            # An observation is what the step before led to.
            number = (done + update) * self._config.settings.num_steps + facts["step"]
            number -= field == "observation"
            facts["at_step"] = max(0, number * self._config.num_envs + facts["environment"])
            words = f"of environment {facts['environment']} at step {facts['step']} {words}"
        words = f"the {field} {words} ({self._config.member_names[seed]}) is not finite"
        if self._config.on_divergence == "stop":
            raise DivergedError(f"{words}. {_ADVICE}")
        words = f"{words}; it is not learnt from."
        if "at_step" in facts:
            words = f"{words[:-1]} (`kiloworlds replay` shows it)."
        self._tell(words, "nonfinite", field=field, **facts)

    def _allowed(self, back: list[int], done: int) -> list[int]:
        """Which of the seeds may go back; the others are given up."""
        rolls = self._config.on_divergence == "rollback"
        allowed = [seed for seed in back if rolls and self._ways_back[seed] < _WAYS_BACK]
        self._ways_back[allowed] += 1
        self._given_up[[seed for seed in back if seed not in allowed]] = True
        if self._given_up.all():
            times = f", {_WAYS_BACK} times after going back" if rolls else ""
            raise DivergedError(
                f"training diverged: {_PATIENCE} updates in a row until update {done} had numbers that "
                f"are not finite{times}. {_ADVICE}"
            )
        return allowed

    def save(self) -> dict[str, np.ndarray]:
        """What has been counted so far, as arrays by name."""
        return {name: getattr(self, f"_{name}").copy() for name in _COUNTED}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes what `save` gave."""
        for name in _COUNTED:
            getattr(self, f"_{name}")[:] = arrays[name]

    @property
    def number(self) -> int:
        """How often seeds went back so far."""
        return int(self._ways_back.sum())


_ADVICE = (
    "A lower learning_rate or normalize_observations and normalize_rewards usually help; NaN from the "
    "environment does this too. The newest checkpoint holds what was learnt before."
)
