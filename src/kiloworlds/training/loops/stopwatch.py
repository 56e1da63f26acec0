"""Where the time goes, as shares."""

import time


class Stopwatch:
    """Seconds spent in each of several activities, from any thread."""

    def __init__(self):
        self._seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def add(self, activity: str, seconds: float) -> None:
        """Counts `seconds` for an activity."""
        self._seconds[activity] = self._seconds.get(activity, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Each activity's seconds since the last call of `shares`."""
        return dict(self._seconds)

    def shares(self) -> dict[str, float]:
        """Each activity's share of the time since the last call."""
        seconds, self._seconds = self._seconds, {}
        now = time.perf_counter()
        elapsed, self._began = now - self._began, now
        return {name: spent / elapsed for name, spent in seconds.items()}
