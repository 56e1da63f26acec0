"""How long JAX compiled."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import jax

_TRACING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
_XLA = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"


@dataclass
class Compiling:
    """Seconds of compiling, in all threads together.

    Attributes:
        tracing: in which Python runs through functions and writes them down for XLA.
        xla: in which XLA compiles, or loads from the cache what it compiled before.
        programs: how many were compiled or loaded.
        from_cache: how many of them came from the cache.
    """

    tracing: float = 0.0
    xla: float = 0.0
    programs: int = 0
    from_cache: int = 0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.tracing + self.xla


@contextlib.contextmanager
def watch() -> Iterator[Compiling]:
    """Counts what is compiled meanwhile."""
    found = Compiling()

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _TRACING:
            found.tracing += duration_secs
        elif event == _XLA:
            found.xla += duration_secs
            found.programs += 1

    def on_event(event: str, **_: str | int) -> None:
        found.from_cache += event == _HIT

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
