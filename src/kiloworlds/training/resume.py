"""Going on with a run, or repeating it: which of its settings may change."""

from typing import Any

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import CHECKPOINTS, PLACES, SURVIVAL

MAY_CHANGE = SURVIVAL | PLACES | {"total_steps", "num_envs", "batch_size"}
"""Settings that change how long, where and how safely a run goes on, and not what it is."""

SEEN_BY_NOBODY = CHECKPOINTS | {"num_workers", "step_timeout", "max_worker_memory"}
"""Settings that may differ where a run is repeated exactly."""


SHAPES = {
    "algorithm",
    "num_seeds",
    "population",
    "network",
    "hidden_sizes",
    "recurrent_size",
    "cnn_channels",
    "cnn_features",
}
"""Settings that decide the shapes of what is learnt."""

Changes = dict[str, tuple[Any, Any]]
"""By setting: what it was, and is."""


def check_changes(old: dict[str, Any], new: dict[str, Any], override: bool) -> Changes:
    """What differs.

    Args:
        override: whether any setting may differ that leaves arrays their shapes.

    Raises:
        InvalidValueError: settings differ that make it another training; the message lists them.
    """
    different = _different(old, new)
    _refuse(
        {name: both for name, both in different.items() if name in SHAPES},
        "Leave them out: what was learnt has the shape that they give it, and cannot be loaded into "
        "another.",
    )
    if not override:
        _refuse(
            {name: both for name, both in different.items() if name not in MAY_CHANGE},
            "Leave them out to go on with the run's own; --override (override=True) goes on with those "
            "given.",
        )
    return different


def in_words(changes: Changes) -> list[str]:
    """A sentence for each change."""
    return [
        f"{name} is {now!r} from here on, instead of {was!r}."
        for name, (was, now) in changes.items()
    ]


def settings_at(
    settings: dict[str, Any], events: list[dict[str, Any]], step: int
) -> dict[str, Any]:
    """The settings with which a step of a run was taken, which resuming it may have changed since.

    Args:
        settings: the newest.
        events: of the run.
        step: over all environments.
    """
    then = dict(settings)
    for event in reversed([event for event in events if event["event"] == "resumed"]):
        if event["step"] <= step:
            break
        then |= {name: was for name, (was, _) in event.get("settings", {}).items()}
    return then


def check_repetition(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Checks that a run can be repeated with these settings.

    Raises:
        InvalidValueError: some differ that it depends on; the message is a table of them.
    """
    different = _different(old, new)
    _refuse(
        {name: both for name, both in different.items() if name not in SEEN_BY_NOBODY},
        "Leave them out: a run that is repeated has its own.",
    )


def _different(old: dict[str, Any], new: dict[str, Any]) -> Changes:
    """Settings that differ."""
    return {name: (old.get(name), now) for name, now in new.items() if old.get(name) != now}


def _refuse(wrong: Changes, advice: str) -> None:
    if wrong:
        rows = "".join(
            f"\n  {name}: {was!r} in the run, {now!r} given" for name, (was, now) in wrong.items()
        )
        raise InvalidValueError(f"the run was trained with other settings:{rows}\n{advice}")
