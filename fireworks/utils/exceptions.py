"""Every error class of fireworks, as one tree.

    Exception
    ├── KeyError
    │   ├── ColumnError                    a column that is not there
    │   ├── CacheMissError                 a row that a cache does not hold
    │   ├── TableError                     a table that is not in the database
    │   ├── TokenError                     a token that has no embedding and no index
    │   └── ParameterizationError          components that are missing or of the wrong type
    ├── LookupError
    │   └── RowGoneError                   a row of a table that was deleted under its reader
    ├── ValueError
    │   ├── CellError                      a value that a column of a table cannot hold
    │   ├── ConfigError                    a configuration with unknown classes or parameters
    │   ├── LengthError                    columns that differ in rows
    │   ├── FormatError                    a file that is not what it should be
    │   └── StateError                     a state that does not fit the object that takes it
    ├── TypeError
    │   └── ConversionError                a column that cannot become a tensor
    ├── ImportError
    │   └── MissingExtraError              an optional library that is not installed
    ├── OSError
    │   ├── DatabaseConnectionError        a database server that cannot be reached, or went away
    │   └── DatabaseFullError              a database that has no room left
    ├── TimeoutError
    │   └── DatabaseLockedError            a lock that somebody else did not release in time
    └── RuntimeError
        ├── EndHyperparameterOptimization  the search is over
        ├── LeaseLostError                 a piece of claimed work that somebody else has taken over
        └── SearchFailedError              a search in which too many trials failed

Each class subclasses what a caller would expect to catch, and `FireworksError` besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CacheMissError",
    "CellError",
    "ColumnError",
    "ConfigError",
    "ConversionError",
    "DatabaseConnectionError",
    "DatabaseFullError",
    "DatabaseLockedError",
    "EndHyperparameterOptimization",
    "FireworksError",
    "FormatError",
    "LeaseLostError",
    "LengthError",
    "MissingExtraError",
    "ParameterizationError",
    "RowGoneError",
    "SearchFailedError",
    "StateError",
    "TableError",
    "TokenError",
    "did_you_mean",
]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'label'?"` for the nearest known name, or nothing when none is near.

    Example:
        >>> did_you_mean("lable", ["label", "text"])
        "; did you mean 'label'?"
    """
    near = get_close_matches(str(name), [str(candidate) for candidate in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class FireworksError(Exception):
    """What every error of ours is, beside the built-in class that a caller would expect."""


class _PlainKeyError(FireworksError, KeyError):
    """A KeyError that prints its text as it is; KeyError itself prints the repr."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ColumnError(_PlainKeyError):
    """A column that is not there."""

    @classmethod
    def unknown(cls, names: Iterable[str], columns: Iterable[str]) -> ColumnError:
        """The error for names that are not among the columns, with the nearest match of each."""
        columns = list(columns)
        missing = " ".join(f"no column {name!r}{did_you_mean(name, columns) or '.'}" for name in names)
        return cls(f"{missing} Columns: {', '.join(map(str, columns)) or '(none)'}")


class CacheMissError(_PlainKeyError):
    """A row that a cache does not hold."""


class TokenError(_PlainKeyError):
    """A token that has no embedding and no index."""


class TableError(_PlainKeyError):
    """A table that is not in the database."""


class RowGoneError(FireworksError, LookupError):
    """A row of a table that was deleted under its reader."""


class CellError(FireworksError, ValueError):
    """A value that a column of a table cannot hold."""


class ConfigError(FireworksError, ValueError):
    """A configuration with unknown classes or parameters, or without something that is needed."""


class ParameterizationError(_PlainKeyError):
    """This exception is raised to indicate that a Model is missing required parameters that it needs to function."""


class LengthError(FireworksError, ValueError):
    """Columns that differ in rows."""


class FormatError(FireworksError, ValueError):
    """A file that is not what it should be: broken, cut off, of another format or version."""


class StateError(FireworksError, ValueError):
    """A state that does not fit the object that takes it."""


class ConversionError(FireworksError, TypeError):
    """A column that cannot become a tensor."""


class MissingExtraError(FireworksError, ImportError):
    """An optional library that is not installed."""

    @classmethod
    def of(cls, needed_by: str, library: str, extra: str) -> MissingExtraError:
        """The error that names the remedy.

        Example:
            >>> print(MissingExtraError.of("OptunaGenerator", "optuna", "optuna"))
            OptunaGenerator needs optuna; install fireworks-ml[optuna]
        """
        return cls(f"{needed_by} needs {library}; install fireworks-ml[{extra}]")


class DatabaseConnectionError(FireworksError, ConnectionError):
    """A database server that cannot be reached, or went away."""


class DatabaseFullError(FireworksError, OSError):
    """A database that has no room left."""


class DatabaseLockedError(FireworksError, TimeoutError):
    """A lock that somebody else did not release in time."""


class LeaseLostError(FireworksError, RuntimeError):
    """A piece of claimed work that somebody else has taken over."""


class SearchFailedError(FireworksError, RuntimeError):
    """A search for hyperparameters in which too many trials failed."""


class EndHyperparameterOptimization(FireworksError, RuntimeError):
    """Raised by a parameterizer to signal a factory to stop looping."""
