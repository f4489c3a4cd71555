"""Bricks of networks: layers, cells, distributions, optimisers; nothing here knows what a world is."""
