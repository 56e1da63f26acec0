"""Battles of two armies after StarCraft, all units commanded one by one."""
