"""A process that times candidates: JAX's devices and threads are chosen once per process.

It is told what to do in lines of JSON on its standard input, and answers in lines on its output.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

_ROLLOUT = 64
"""Steps of the rollouts that are collected to time environments outside XLA."""


def serve(setup: dict[str, Any]) -> None:
    """Answers until its input ends.

    Args:
        setup: `path` to import from, modules to `import`, `devices` and `threads` of JAX.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever an environment prints is no answer
    sys.path[:] = setup["path"]
    from kiloworlds.core.devices import configure
    from kiloworlds.core.user_code import import_user_module

    configure(setup["devices"], setup["threads"])
    for module in setup["import"]:
        import_user_module(module)
    timed: dict[str, _Timed] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, timed)
        except Exception as error:  # of the environment, or of what was asked for: others may do
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    for each in timed.values():
        each.close()


def _answer(request: dict[str, Any], timed: dict[str, "_Timed"]) -> dict[str, Any]:
    from kiloworlds.training.config import TrainConfig

    name = request.get("name", "")
    match request["do"]:
        case "describe":
            return _describe(TrainConfig.from_dict(request["config"]))
        case "open":
            timed[name] = _Timed(TrainConfig.from_dict(request["config"]))
            return {"seconds_per_call": timed[name].warm_up()}
        case "measure":
            return timed[name].measure(request["seconds"])
        case "close":
            timed.pop(name).close()
            return {}
    raise ValueError(f"unknown request {request['do']!r}")


def _describe(config: Any) -> dict[str, Any]:
    import jax

    from kiloworlds.core.devices import available_cores
    from kiloworlds.core.registry import find_spec
    from kiloworlds.training.algorithms import AGENTS
    from kiloworlds.training.make_training import choose_host_backend
    from kiloworlds.vector.make import native_engine

    compiled = find_spec(config.env_id) is not None and config.backend in ("auto", "compiled")
    several = config.algorithm in AGENTS
    return {
        "compiled": compiled,
        "native": not compiled
        and not several
        and native_engine(config.env_id, config.preprocessing, config.env_kwargs) is not None,
        "streams": not several,
        "auto": "" if compiled or config.backend != "auto" else choose_host_backend(config),
        "cores": available_cores(),
        "on_cpu": jax.default_backend() == "cpu",
        "devices": len(jax.devices()),
    }


class _Timed:
    """One training, to be timed."""

    def __init__(self, config: Any):
        from kiloworlds.profiling.tuning.candidates import shortened
        from kiloworlds.training.loops.fused_loop import FusedLoop
        from kiloworlds.training.make_training import make_training

        first = make_training(config) if _is_compiled(config) else None
        if isinstance(first, FusedLoop):
            self._training: Any = first
            self._steps = config.steps_per_update * config.num_members
            self._prepare, self._call = self._updating(first)
        else:
            short = shortened(config, _ROLLOUT)
            self._training = make_training(short)
            self._steps = short.steps_per_update
            self._prepare, self._call = self._collecting(self._training)

    def _updating(self, training: Any) -> tuple[Callable[[], Any], Callable[[Any, int], Any]]:
        """Updates from the first on, always the same ones: how fast they are may change with what is
        learnt, and with steps beyond the last that was asked for."""
        from kiloworlds.training.loops.fused_loop import CHUNK

        first = training.save(training.init())

        def prepare() -> Any:
            return training.restore(first, print)[0]

        def call(state: Any, count: int) -> Any:
            while count > 0:
                state, _ = training.run(state, min(count, CHUNK))
                count -= CHUNK
            return state

        return prepare, call

    def _collecting(self, training: Any) -> tuple[Callable[[], Any], Callable[[Any, int], Any]]:
        """Rollouts that nothing is learnt from, one after the other."""
        self._state = training.init()

        def call(state: Any, count: int) -> Any:
            for _ in range(count):
                state = training.collect(state)
            self._state = state
            return state

        return lambda: self._state, call

    def warm_up(self) -> float:
        """Seconds of one call, once everything has run."""
        state = self._call(self._prepare(), 1)
        began = time.perf_counter()
        self._call(state, 1)
        self._seconds = time.perf_counter() - began
        return self._seconds

    def measure(self, seconds: float) -> dict[str, Any]:
        """Steps and the seconds they took."""
        count = max(1, round(seconds / self._seconds))
        state = self._prepare()
        began = time.perf_counter()
        self._call(state, count)
        taken = time.perf_counter() - began
        self._seconds = taken / count
        return {"steps": count * self._steps, "seconds": taken}

    def close(self) -> None:
        self._training.close()


def _is_compiled(config: Any) -> bool:
    from kiloworlds.core.registry import find_spec

    return config.backend in ("auto", "compiled") and find_spec(config.env_id) is not None


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
