"""Extensions: one library each, imported by path (`fireworks.extensions.training`) or lazily from `fireworks`.

Nothing is imported here, so that a script which uses one extension does not wait for the libraries of the others.
"""
