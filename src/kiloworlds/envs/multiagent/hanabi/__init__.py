"""Hanabi: the cooperative card game of hints, as a challenge for agents."""
