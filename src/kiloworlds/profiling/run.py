"""`profile`: from settings to where the time goes."""

import dataclasses
from pathlib import Path

from kiloworlds.core.checks import require_number
from kiloworlds.profiling import picture
from kiloworlds.profiling.advice import advise
from kiloworlds.profiling.ceilings import ceilings
from kiloworlds.profiling.fused import profile_fused
from kiloworlds.profiling.host import profile_host
from kiloworlds.profiling.profile import Profile
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused_loop import FusedLoop
from kiloworlds.training.make_training import make_training
from kiloworlds.training.placement import configure_devices


def profile(
    config: TrainConfig,
    *,
    seconds: float = 5.0,
    file: Path | None = None,
    remeasure: bool = False,
) -> Profile:
    """Measures where the time of a training goes; nothing of what it learns is kept.

    Args:
        seconds: to measure, about; compiling comes on top, and at least one update is measured.
        file: where the picture goes; None for no picture.
        remeasure: whether the machine's ceilings are measured again; else once per machine.

    Raises:
        InvalidValueError: a setting out of range.
    """
    require_number("seconds", seconds, 0.1, 3600.0)
    configure_devices(config)
    most = ceilings(remeasure)  # before anything else of this process runs
    training = make_training(config)
    try:
        if isinstance(training, FusedLoop):
            found = profile_fused(config, training, seconds)
        else:
            found = profile_host(config, training, seconds)
    finally:
        training.close()
    found = dataclasses.replace(found, ceilings=most)
    found = dataclasses.replace(found, advice=advise(found))
    if file is not None:
        picture.save(found, file)
        found = dataclasses.replace(found, picture=str(file))
    return found
