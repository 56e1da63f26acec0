"""Everything that is checked, by kind of environment."""

from kiloworlds.testing.checks.context import Check


def checks_for(kind: str) -> tuple[Check, ...]:
    """The checks of one kind of environment, in order.

    Args:
        kind: "gymnasium", "parallel", "aec" or "compiled".
    """
    if kind == "compiled":
        from kiloworlds.testing.checks import compiled

        return (
            Check("constructor", compiled.check_kind),
            *compiled.CONTRACT_CHECKS,
            Check("speed", compiled.check_speed),
        )
    from kiloworlds.testing.checks import (
        construction,
        interface,
        official,
        rendering,
        resources,
        rollout,
        seeding,
        workers,
    )

    single = kind == "gymnasium"
    return (
        Check("constructor", construction.check_constructor, needs_steps=False),
        Check("pickling", construction.check_pickling, needs_steps=False),
        Check("interface", interface.check_interface, needs_steps=False),
        Check("gymnasium check_env", official.check_gymnasium, needs_steps=False)
        if single
        else Check("pettingzoo tests", official.check_pettingzoo, needs_steps=False),
        Check("rollout", rollout.check_rollout),
        Check("seeding", seeding.check_seeding),
        Check("copies", seeding.check_copies),
        Check("rendering", rendering.check_rendering),
        *((Check("workers", workers.check_workers),) if single else ()),
        Check("leaks", resources.check_leaks),
        Check("closing", construction.check_closing),
        Check("speed", resources.check_speed),
    )
