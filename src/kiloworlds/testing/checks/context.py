"""What every check is given, and what a check is."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kiloworlds.testing.checks.players import Player, make_player
from kiloworlds.testing.report import Finding


@dataclass(frozen=True)
class Context:
    """The environment under test and how much to try.

    Attributes:
        make: builds one environment; takes further keyword arguments, such as `render_mode`.
        kind: "gymnasium", "parallel", "aec" or "compiled".
        steps: of the long rollouts.
        seconds: the most a rollout may take; a slow environment is tried for fewer steps.
        seed: the first of the seeds used.
    """

    make: Callable[..., Any]
    kind: str
    steps: int
    seconds: float
    seed: int

    def player(self, env: Any = None, action_seed: int = 0) -> Player:
        """Random actions, always the same for equal seeds, in a new environment or in `env`."""
        return make_player(self.make() if env is None else env, self.kind, action_seed)

    def clock(self, share: float = 1.0) -> Callable[[], bool]:
        """Tells whether a share of the seconds is over."""
        end = time.monotonic() + share * self.seconds
        return lambda: time.monotonic() >= end


@dataclass(frozen=True)
class Check:
    """One check: its name and the function that makes its findings.

    Attributes:
        needs_steps: whether it makes sense only for an environment that can be reset and stepped.
    """

    name: str
    run: Callable[[Context], Iterable[Finding]]
    needs_steps: bool = True
