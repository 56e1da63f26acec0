"""Robots with lidar that drive to their goals among walls and each other."""

from kiloworlds.envs.multiagent.navigation.maps import NavigationMap
from kiloworlds.envs.multiagent.navigation.named_maps import MAPS

__all__ = ["MAPS", "NavigationMap"]
