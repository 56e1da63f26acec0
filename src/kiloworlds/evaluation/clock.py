"""The time that training takes."""

import numpy as np
from jaxtyping import Float


def without_compilation(
    steps: Float[np.ndarray, " rows"], seconds: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"] | None:
    """Seconds of training alone; None where there are too few rows to tell.

    The first row holds compilation: what it would have taken without is judged by the others' pace.
    """
    if len(steps) < 2 or seconds[-1] <= seconds[0] or steps[-1] <= steps[0]:
        return None
    pace = (seconds[-1] - seconds[0]) / (steps[-1] - steps[0])
    return seconds - max(0.0, seconds[0] - pace * steps[0])
