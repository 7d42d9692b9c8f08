"""The errors: one root, messages with hints, exit codes, nearest matches."""

import pytest

from linne import errors
from linne.errors import CheckFailed, LinneError, suggest


def test_every_error_of_the_package_is_a_linne_error():
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(raised) == 8
    assert all(issubclass(kind, LinneError) for kind in raised)


def test_an_error_says_its_message_and_keeps_its_hint():
    error = LinneError("no file `a.png`", hint="type another")
    assert (str(error), error.message, error.hint) == ("no file `a.png`", "no file `a.png`", "type another")


def test_a_failed_check_has_its_own_exit_code():
    assert (LinneError("x").exit_code, CheckFailed("x").exit_code) == (1, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("digit", "did you mean `digits`?"), ("cifar-10", "did you mean `cifar10`?"), ("photos", None)],
)
def test_a_misspelt_name_gets_its_nearest_match_and_a_strange_one_none(name, expected):
    assert suggest(name, ["digits", "cifar10", "mnist"]) == expected
