"""The policy that actors use while the learner goes on."""

import threading

from kiloworlds.algorithms.ppo import PolicyNetwork


class PolicyBoard:
    """Where the learner publishes its policy, and actors wait for one that is new enough."""

    def __init__(self):
        self._changed = threading.Condition()
        self._version, self._policy = -1, None
        self._stopped = False

    def publish(self, version: int, policy: PolicyNetwork) -> None:
        """Offers the policy as it is after `version` updates."""
        with self._changed:
            self._version, self._policy = version, policy
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
            assert self._policy is not None
            return self._version, self._policy

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
