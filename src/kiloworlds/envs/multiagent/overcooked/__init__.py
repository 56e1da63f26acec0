"""Overcooked, the first version and the second: names of kitchens, and the environments."""

from kiloworlds.envs.multiagent.overcooked.layouts import LAYOUTS, LAYOUTS_V2
from kiloworlds.envs.multiagent.overcooked.overcooked import Overcooked
from kiloworlds.envs.multiagent.overcooked.overcooked_v2 import OvercookedV2

__all__ = ["LAYOUTS", "LAYOUTS_V2", "Overcooked", "OvercookedV2"]
