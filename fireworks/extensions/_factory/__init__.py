"""The parts of `fireworks.extensions.factory`."""
