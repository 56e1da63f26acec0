"""How long each operation of a program took, by JAX's own profiler."""

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def seconds_by_operation(call: Callable[[], Any], module: str) -> dict[str, float]:
    """Runs `call` once while the profiler listens; seconds by operation, all threads together.

    Loops and conditionals contain what they run, so their seconds are those of others as well. The
    profiler itself adds to the time of operations that take a microsecond.

    Args:
        call: runs the program, and waits for it.
        module: the name of the program whose operations count, such as "jit__updates".
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            call()
        for file in Path(directory).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                for line in plane.lines:
                    for event in line.events:
                        facts = {name: value for name, value in event.stats if name in _FACTS}
                        if facts.get("hlo_module") == module and "hlo_op" in facts:
                            found[str(facts["hlo_op"])] += event.duration_ns * 1e-9
    return dict(found)


_FACTS = ("hlo_module", "hlo_op")
