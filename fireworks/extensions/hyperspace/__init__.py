"""Hyperspace: configurable scenarios, tasks, a queue of runs with workers, and results to compare.

Import its modules by path, for instance `from fireworks.extensions.hyperspace.configurables import Configurable`.
"""
