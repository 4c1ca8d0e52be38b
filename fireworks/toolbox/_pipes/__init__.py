"""The pipes of `fireworks.toolbox.pipes`, a file per idea."""
