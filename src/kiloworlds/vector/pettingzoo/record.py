"""What a step of a PettingZoo environment gives, as arrays over the agent axis.

A record is the observation of a hidden Gymnasium environment, so that rewards, flags and masks of all
agents travel the way observations do: in shared memory.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.pettingzoo.layout import AgentKind, AgentLayout, block_space
from kiloworlds.vector.process.codec import Codec, SpaceMismatchError, codec

Record = dict[str, Any]

FLAGS = ("terminated", "truncated", "alive", "acting")


class RecordWriter:
    """Makes the records of one environment.

    A record holds "observation" (one block, or one per kind), "reward" and "return" (so far in the
    episode), `[A]`, the flags "terminated", "truncated", "alive" and "acting", `[A]`, and, where
    actions can be masked, "action_mask" by kind, `[K, ...]`, beside "masks_given".

    Args:
        layout: of the agents.

    Attributes:
        space: of records.

    Raises:
        InvalidValueError: an observation space whose values have no fixed size.
    """

    def __init__(self, layout: AgentLayout):
        self._layout = layout
        self._masked = {
            name: kind for name, kind in layout.kinds.items() if kind.mask_shape is not None
        }
        self._codecs = {name: _block_codec(kind) for name, kind in layout.kinds.items()}
        self._place = {
            agent: (name, row)
            for name, kind in layout.kinds.items()
            for row, agent in enumerate(kind.agents)
        }
        count = (len(layout.agents),)
        parts: dict[str, spaces.Space] = {
            "observation": layout.arrange(
                {name: block_space(kind, "observation") for name, kind in layout.kinds.items()}
            ),
            "reward": spaces.Box(-np.inf, np.inf, count, np.float64),
            "return": spaces.Box(-np.inf, np.inf, count, np.float64),
        }
        parts |= {flag: _flags(count) for flag in FLAGS}
        if self._masked:
            parts["action_mask"] = spaces.Dict(
                {name: _flags(_mask_shape(kind)) for name, kind in self._masked.items()}
            )
            parts["masks_given"] = _flags(())
        self.space = spaces.Dict(parts)

    def write(
        self,
        observations: dict[Any, Any],
        infos: dict[Any, dict[str, Any]],
        acting: np.ndarray,
        cut: np.ndarray,
        where: str,
    ) -> Record:
        """A new record with observations and masks; rewards and flags are the caller's to add.

        Args:
            observations, infos: by agent; the rows of others are zero.
            acting: which agents act next, `[A]`. The masks of others are all True.
            cut: which agents would have acted if the episode had not been cut off, `[A]`: what they
                might have done is kept, to tell what the state was worth.
            where: such as "step 3", for errors.

        Raises:
            InvalidValueError: a value that does not fit its space.
        """
        arrays = {
            name: [np.zeros(spec.shape, spec.dtype) for spec in block.specs]
            for name, block in self._codecs.items()
        }
        masks = {name: np.ones(_mask_shape(kind), bool) for name, kind in self._masked.items()}
        given = False
        for agent, value in observations.items():
            name, row = self._place[agent]
            kind = self._layout.kinds[name]
            observation, mask = kind.split(value)
            try:
                self._codecs[name].write(arrays[name], row, observation)
            except SpaceMismatchError as error:
                raise InvalidValueError(f"in {where} agent {agent!r}: {error}") from None
            if name not in masks:
                continue
            if mask is None:
                mask = infos.get(agent, {}).get("action_mask")
            if mask is None:
                continue
            given = True
            place = kind.indices[row]
            if acting[place] or (cut[place] and np.any(mask)):
                masks[name][row] = _checked_mask(mask, kind, agent, where)
        record: Record = {
            "observation": self._layout.arrange(
                {name: block.batch(arrays[name]) for name, block in self._codecs.items()}
            )
        }
        if masks:
            record["action_mask"], record["masks_given"] = masks, np.asarray(given)
        return record


def _block_codec(kind: AgentKind) -> Codec:
    block = codec(kind.observation_space, len(kind.agents), "the observation")
    if block is None:
        raise InvalidValueError(
            f"the observation space of the kind {kind.name!r}, {kind.observation_space}, has values of "
            "no fixed size; an agent axis needs arrays. Make it a Box, with padding where needed."
        )
    return block


def _flags(shape: tuple[int, ...]) -> spaces.Box:
    return spaces.Box(0, 1, shape, np.bool_)  # type: ignore[arg-type]


def _mask_shape(kind: AgentKind) -> tuple[int, ...]:
    return (len(kind.agents), *(kind.mask_shape or ()))


def _checked_mask(mask: Any, kind: AgentKind, agent: Any, where: str) -> np.ndarray:
    array = np.asarray(mask)
    if array.shape != kind.mask_shape:
        raise InvalidValueError(
            f"in {where} the action mask of agent {agent!r} has shape {array.shape}; its "
            f"{kind.action_space} needs {kind.mask_shape}."
        )
    return array.astype(bool)
