"""Faces of a world model: one engine underneath, gymnasium and Stable-Baselines3 environments on top."""
