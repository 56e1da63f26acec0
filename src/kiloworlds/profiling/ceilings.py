"""What this machine can do at most: floating-point operations and bytes per second, measured once.

    python -m kiloworlds.profiling.ceilings      # measures, and prints JSON

in a process of its own, as how many threads a program has is decided once per process.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from kiloworlds.core.errors import KiloworldsError
from kiloworlds.profiling import store

_FILE = "ceilings"
_SIZE = {"cpu": 2048, "other": 8192}
"""Rows and columns of the matrices that are multiplied."""
_NUMBERS = 2**25
"""Of the array that is read and written: 128 MiB, more than caches hold."""
_REPEATS = 12
_TIMEOUT = 120.0


class CeilingError(KiloworldsError, RuntimeError):
    """What the machine can do could not be measured."""


class Roof(NamedTuple):
    """What some cores can do at most: floating-point operations and bytes per second; and which."""

    flops: float
    bytes: float
    whose: str


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """The most that programs of 32-bit numbers reached on this machine.

    Attributes:
        flops: floating-point operations per second of a large matrix product, all cores.
        bytes: bytes per second that were read and written, all cores.
        flops_of_one, bytes_of_one: the same of one thread; None for accelerators.
        device: what was measured, such as "cpu".
    """

    flops: float
    bytes: float
    flops_of_one: float | None
    bytes_of_one: float | None
    device: str

    def roof(self, cores: int) -> Roof:
        """What a program can do at most that uses so many cores: one, or all."""
        if cores == 1 and self.flops_of_one and self.bytes_of_one:
            return Roof(self.flops_of_one, self.bytes_of_one, "one core")
        whose = "all cores" if self.flops_of_one else self.device
        return Roof(self.flops, self.bytes, whose)


def ceilings(again: bool = False) -> Ceilings:
    """The ceilings of the devices of this process, measured unless they are stored.

    Args:
        again: whether to measure in any case.

    Raises:
        CeilingError: the process that measures failed.
    """
    import jax

    device = jax.devices()[0].device_kind
    key = store.machine_key(device)
    stored = None if again else store.read(_FILE, key)
    names = {field.name for field in dataclasses.fields(Ceilings)}
    if stored is not None and set(stored) == names:
        return Ceilings(**stored)
    whole = _in_another_process({})
    on_cpu = jax.default_backend() == "cpu"
    one = _in_another_process({"PJRT_NPROC": "1"}) if on_cpu else {}
    # All cores can do what one can: measured less, others used the machine meanwhile.
    most = {name: max(whole[name], one.get(name, 0.0)) for name in whole}
    found = Ceilings(most["flops"], most["bytes"], one.get("flops"), one.get("bytes"), device)
    store.write(_FILE, key, dataclasses.asdict(found))
    return found


def _in_another_process(variables: dict[str, str]) -> dict[str, Any]:
    # An accelerator's memory is this process's already, but for the rest.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PJRT_NPROC", "XLA_FLAGS")
    }
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kiloworlds.profiling.ceilings"],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").strip().splitlines()
        why = said[-1] if said else str(error)
        raise CeilingError(f"the machine's ceilings could not be measured: {why}") from error
    return json.loads(done.stdout.splitlines()[-1])


def measure() -> dict[str, float]:
    """Measures in this process: `flops` and `bytes` per second."""
    import jax
    import jax.numpy as jnp

    size = _SIZE["cpu" if jax.default_backend() == "cpu" else "other"]
    matrix = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    product = _fastest(lambda: jax.block_until_ready(multiply(matrix, matrix)))
    numbers = jnp.zeros(_NUMBERS, jnp.float32)
    count = jax.jit(lambda array: array + 1.0, donate_argnums=0)

    def stream() -> None:
        nonlocal numbers
        numbers = jax.block_until_ready(count(numbers))

    moved = 2 * numbers.nbytes
    return {"flops": 2.0 * size**3 / product, "bytes": moved / _fastest(stream)}


def _fastest(call: Callable[[], Any]) -> float:
    """The least seconds of a few calls: what else runs on the machine only adds to them."""
    call()  # compiles
    taken = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    print(json.dumps(measure()))
