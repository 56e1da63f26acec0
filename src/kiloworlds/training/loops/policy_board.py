"""The policy that actors use while the learner goes on."""

import threading

from kiloworlds.algorithms.ppo import PolicyNetwork


class PolicyBoard:
    """Where the learner publishes its policy, and actors wait for one that is new enough.

    Args:
        kept: how many versions stay, the newest included.
    """

    def __init__(self, kept: int = 1):
        self._changed = threading.Condition()
        self._kept = kept
        self._version = self._first = -1
        self._policies: dict[int, PolicyNetwork] = {}
        self._stopped = False

    def publish(self, version: int, policy: PolicyNetwork) -> None:
        """Offers the policy as it is after `version` updates."""
        with self._changed:
            self._version = version
            if not self._policies:
                self._first = version
            self._policies[version] = policy
            self._policies.pop(version - self._kept, None)
            self._changed.notify_all()

    def newest(self, at_least: int) -> tuple[int, PolicyNetwork]:
        """The newest version and its policy; waits until it is `at_least` so new.

        Raises:
            StoppedError: nobody will publish any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.has(at_least))
            if self._stopped:
                raise StoppedError
            return self._version, self._policies[self._version]

    def version(self, number: int) -> tuple[int, PolicyNetwork]:
        """One version (for numbers before it the first) and its number; waits until it is there.

        Which one it is depends on no clock, so that a run repeats exactly.

        Raises:
            StoppedError: nobody will publish any more.
        """
        self.newest(number)
        with self._changed:
            number = max(number, self._first)
            return number, self._policies[number]

    def has(self, version: int) -> bool:
        """Whether `newest` would return at once."""
        return self._stopped or self._version >= max(version, 0)

    def stop(self) -> None:
        """Ends the waiting of all actors."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class StoppedError(Exception):
    """Training has ended while an actor waited."""
