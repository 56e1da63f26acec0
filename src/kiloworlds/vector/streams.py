"""NumPy's random streams as arrays, and back."""

from collections.abc import Sequence

import numpy as np

from kiloworlds.core.errors import InvalidValueError

_WORD = (1 << 64) - 1


def streams_to_array(streams: Sequence[np.random.Generator | None]) -> np.ndarray:
    """The states of PCG64 streams, uint64 `[N, 7]`; the first number says whether there is one."""
    return np.array([_numbers(stream) for stream in streams], np.uint64)


def _numbers(stream: np.random.Generator | None) -> list[int]:
    if stream is None:
        return [0] * 7
    told = stream.bit_generator.state
    if told["bit_generator"] != "PCG64":
        raise InvalidValueError(f"random streams are PCG64, not {told['bit_generator']}.")
    state, increment = told["state"]["state"], told["state"]["inc"]
    halves = [state & _WORD, state >> 64, increment & _WORD, increment >> 64]
    return [1, *halves, told["has_uint32"], told["uinteger"]]


def streams_from_array(array: np.ndarray) -> list[np.random.Generator | None]:
    """The opposite."""
    return [_stream(list(map(int, row))) for row in array]


def _stream(numbers: list[int]) -> np.random.Generator | None:
    there, state_low, state_high, low, high, has_half, half = numbers
    if not there:
        return None
    generator = np.random.PCG64(0)
    generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_low | state_high << 64, "inc": low | high << 64},
        "has_uint32": has_half,
        "uinteger": half,
    }
    return np.random.Generator(generator)
