"""Seeds: the same seed the same episodes, other seeds others, and copies that share nothing."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.players import Player, Transition
from kiloworlds.testing.checks.values import difference
from kiloworlds.testing.report import Finding, Result

_STEPS = 300
_EPISODES = 5  # so many at least are seen: longer ones are cut short by a reset
_SEEDS = 4

_NP_RANDOM = "draw everything random from self.np_random, which super().reset(seed=seed) seeds"

Trace = list[Transition]


def check_seeding(context: Context) -> Iterator[Finding]:
    """Compares whole trajectories, bit for bit, with equal actions."""
    states = _global_states()
    env = context.make()
    first = trace(context, context.player(env), context.seed)
    if _global_states() != states:
        yield Finding(
            "seeding",
            "warning",
            "draws from the global generator of NumPy or of the module random",
            _NP_RANDOM,
        )
    again = trace(context, context.player(), context.seed)
    different = first_difference(first, again)
    if different is not None:
        yield _not_repeated(context, env, different, first, again)
        return
    restarted = trace(context, context.player(env), context.seed)
    different = first_difference(first, restarted)
    if different is not None:
        yield Finding(
            "seeding",
            "failed",
            f"a used environment reset with the seed it had goes another way: {different}",
            f"let reset(seed=...) reset everything; {_NP_RANDOM}",
        )
        return
    others = [trace(context, context.player(), context.seed + i) for i in range(1, _SEEDS)]
    yield from _randomness(first, others)


def _not_repeated(
    context: Context, env: Any, different: str, first: Trace, again: Trace
) -> Finding:
    """Tells a seed that determines nothing from one that determines the first episode only."""
    own, others = _episodes(first)[0], _episodes(again)[0]
    if first_difference(own, others) is None:
        return Finding(
            "seeding",
            "failed" if context.kind == "gymnasium" else "warning",
            f"reset() without a seed draws a new seed instead of going on with the last: {different}",
            "make a new generator only where a seed is given, as super().reset(seed=seed) does",
        )
    nondeterministic = getattr(getattr(env, "spec", None), "nondeterministic", False)
    result: Result = "warning" if nondeterministic else "failed"
    return Finding("seeding", result, f"equal seeds, but {different}", _NP_RANDOM)


def _randomness(first: Trace, others: list[Trace]) -> Iterator[Finding]:
    """Whether seeds and episodes differ, where anything is random."""
    seeds_differ = any(first_difference(first, other) is not None for other in others)
    episodes = _episodes(first)
    episodes_differ = any(_differ(episodes[0], episode) for episode in episodes[1:])
    if not seeds_differ and not episodes_differ:
        yield Finding("seeding", "ok", "equal seeds give equal episodes; nothing random was seen")
        return
    if not seeds_differ:
        yield Finding(
            "seeding",
            "failed",
            f"{_SEEDS} different seeds give the same episodes: copies would all do the same",
            _NP_RANDOM,
        )
        return
    if not episodes_differ and len(episodes) > 1 and _starts_differ(first, others):
        yield Finding(
            "seeding",
            "failed",
            "reset() without a seed repeats the same start for ever",
            "seed only where one is given: super().reset(seed=seed) does so",
        )
        return
    yield Finding(
        "seeding", "ok", "equal seeds give equal episodes, different seeds different ones"
    )


def check_copies(context: Context) -> Iterator[Finding]:
    """A second environment, stepped in turn with the first, must not change what that one does."""
    alone = trace(context, context.player(), context.seed)
    if first_difference(alone, trace(context, context.player(), context.seed)) is not None:
        yield Finding("copies", "warning", "cannot be told: equal seeds give different episodes")
        return
    disturber = context.player(action_seed=1)
    disturber.reset(context.seed + 1)
    beside = trace(context, context.player(), context.seed, disturber)
    different = first_difference(alone, beside)
    if different is None:
        yield Finding("copies", "ok", "two environments side by side do not disturb each other")
        return
    yield Finding(
        "copies",
        "failed",
        f"with a second environment beside it, {different}: they share state",
        "keep state in self, not in class attributes, default arguments or globals",
    )


def trace(context: Context, player: Player, seed: int, beside: Player | None = None) -> Trace:
    """The transitions of several episodes, of which only the first is seeded.

    Args:
        beside: another player, stepped after every step.
    """
    time_is_up = context.clock(0.15)
    steps = min(_STEPS, context.steps)
    seen = [player.reset(seed).copy()]
    disturbing = None
    for _ in range(steps):
        last = seen[-1]
        seen.append(
            (
                player.reset() if last.over or last.step >= steps // _EPISODES else player.step()
            ).copy()
        )
        if beside is not None:
            over = disturbing is not None and disturbing.over
            disturbing = beside.reset() if over else beside.step()
        if time_is_up():
            break
    return seen


def first_difference(first: Trace, second: Trace) -> str | None:
    """Where two traces part, or None; a trace that ran out of time ends the comparison."""
    for position, (one, two) in enumerate(zip(first, second, strict=False)):
        ours, theirs = one.compared(), two.compared()
        for name in ours:
            word = name.removesuffix("s")
            different = difference(ours[name], theirs[name], word)
            if different is not None:
                return f"after {position} calls (step {one.step} of its episode) {different}"
    return None


def _episodes(seen: Trace) -> list[Trace]:
    starts = [index for index, transition in enumerate(seen) if transition.step == 0]
    return [seen[a:b] for a, b in zip(starts, [*starts[1:], len(seen)], strict=True)]


def _differ(first: Trace, second: Trace) -> bool:
    """Whether two episodes start differently.

    Later transitions follow other actions and would differ anyhow.
    """
    return first_difference(first[:1], second[:1]) is not None


def _starts_differ(first: Trace, others: list[Trace]) -> bool:
    return any(_differ(first, other) for other in others)


def _global_states() -> tuple:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest
