"""What loops ask of an algorithm for several agents.

Letters in shapes: T steps, N environments, A agents.
"""

from typing import Any, ClassVar, Protocol

from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.algorithms.experience import AgentsExperience, AgentsSeen, KindLayout


class AgentsAlgorithm(Protocol):
    """Pure functions over explicit state; they do not know where the environments run.

    Attributes:
        layout: the kinds of agents.
        replays: whether it carries experience on and learns from it again.
    """

    layout: KindLayout
    replays: ClassVar[bool]

    def init(self, key: Key[Array, ""]) -> PyTree:
        """All that is learnt, before the first update."""
        ...

    def begin(self, num_envs: int) -> PyTree:
        """The memory that acting starts from, of each environment (leading axis N)."""
        ...

    def carry(self, num_envs: int, experience: AgentsExperience) -> PyTree:
        """What learning carries on from one rollout into the next, before the first.

        Args:
            experience: the arrays of a rollout, or their shapes.
        """
        ...

    def policy(self, state: PyTree, progress: Any = None) -> PyTree:
        """What acting needs, after a share `progress` of the training; None: it is over."""
        ...

    def act(
        self,
        policy: PyTree,
        key: Key[Array, ""],
        seen: AgentsSeen,
        memory: PyTree,
        greedy: bool = False,
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Chooses actions for all agents: exploring, or the best it knows.

        Returns:
            The actions for the environments, what is to be kept of them, and the new memory.
        """
        ...

    def settle(self, policy: PyTree, drawn: PyTree) -> PyTree:
        """Works on what acting kept, once for a whole rollout `[T, N, ...]`."""
        ...

    def forget(
        self, memory: PyTree, finished: Bool[Array, "N A"], episode_finished: Bool[Array, " N"]
    ) -> PyTree:
        """Clears the memory of agents whose own part, or whose episode, is over."""
        ...

    def update(
        self,
        state: PyTree,
        experience: AgentsExperience,
        carried: PyTree,
        key: Key[Array, ""],
        progress: Float[Array, ""],
    ) -> tuple[PyTree, PyTree, dict[str, Array]]:
        """Learns from one rollout, after a share `progress` of the training.

        Returns:
            The new state, what is carried on, and metrics (scalars).
        """
        ...
