"""The tree of errors: what each can be caught as, and what it says."""

import pickle

import pytest

from fireworks.utils import exceptions
from fireworks.utils.exceptions import (
    CacheMissError,
    CellError,
    ColumnError,
    ConfigError,
    ConversionError,
    DatabaseConnectionError,
    DatabaseFullError,
    DatabaseLockedError,
    EndHyperparameterOptimization,
    FireworksError,
    FormatError,
    LeaseLostError,
    LengthError,
    MissingExtraError,
    ParameterizationError,
    RowGoneError,
    SearchFailedError,
    StateError,
    TableError,
    TokenError,
    did_you_mean,
)

PARENTS = {
    CacheMissError: KeyError,
    CellError: ValueError,
    ColumnError: KeyError,
    ConfigError: ValueError,
    ConversionError: TypeError,
    DatabaseConnectionError: ConnectionError,
    DatabaseFullError: OSError,
    DatabaseLockedError: TimeoutError,
    EndHyperparameterOptimization: RuntimeError,
    FormatError: ValueError,
    LeaseLostError: RuntimeError,
    LengthError: ValueError,
    MissingExtraError: ImportError,
    ParameterizationError: KeyError,
    RowGoneError: LookupError,
    SearchFailedError: RuntimeError,
    StateError: ValueError,
    TableError: KeyError,
    TokenError: KeyError,
}


@pytest.mark.parametrize("error, parent", PARENTS.items())
def test_an_error_can_be_caught_as_what_a_caller_expects_and_as_one_of_ours(error, parent):
    assert issubclass(error, parent) and issubclass(error, FireworksError)


@pytest.mark.parametrize("error", PARENTS)
def test_an_error_prints_its_text_without_quotes_and_survives_pickling(error):
    raised = pickle.loads(pickle.dumps(error("what's missing")))

    assert type(raised) is error
    assert str(raised) == "what's missing"


def test_the_list_of_classes_is_complete():
    found = [value for value in vars(exceptions).values() if isinstance(value, type)]
    classes = {kind.__name__ for kind in found if issubclass(kind, FireworksError) and kind.__name__[0] != "_"}

    assert classes == {error.__name__ for error in PARENTS} | {"FireworksError"}
    assert classes | {"did_you_mean"} == set(exceptions.__all__)


def test_an_unknown_column_is_named_with_the_nearest_and_with_all_that_exist():
    error = ColumnError.unknown(["lable", "zzz"], ["label", "text"])

    assert str(error) == "no column 'lable'; did you mean 'label'? no column 'zzz'. Columns: label, text"


def test_an_unknown_column_of_nothing_says_that_there_is_none():
    assert str(ColumnError.unknown(["a"], [])) == "no column 'a'. Columns: (none)"


def test_a_missing_library_names_the_extra():
    error = MissingExtraError.of("OptunaGenerator", "optuna", "optuna")

    assert str(error) == "OptunaGenerator needs optuna; install fireworks-ml[optuna]"


@pytest.mark.parametrize("name, expected", [("lable", "; did you mean 'label'?"), ("xyz", ""), (3, "")])
def test_did_you_mean_proposes_only_what_is_near(name, expected):
    assert did_you_mean(name, ["label", "text"]) == expected
