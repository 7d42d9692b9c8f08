"""The public surface: `linne.__all__`, what checkers see, and what is really served."""

import ast
import tomllib

import pytest

import linne


def test_all_is_sorted():
    assert linne.__all__ == sorted(linne.__all__)


@pytest.mark.parametrize("name", linne.__all__)
def test_every_public_name_can_be_had_and_says_what_it_is(name):
    value = getattr(linne, name)
    assert name == "__version__" or value.__doc__


def test_checkers_and_readers_are_told_the_same_names_from_the_same_places(repository):
    tree = ast.parse((repository / "src/linne/__init__.py").read_text("utf-8"))
    seen_by_checkers = {
        name.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    served = {name: module for module, names in linne._MODULES.items() for name in names}
    assert seen_by_checkers == served
    assert sorted(["__version__", *served]) == linne.__all__


def test_dir_lists_the_public_names():
    assert dir(linne) == linne.__all__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module `linne` has no attribute `trian`"):
        _ = linne.trian


def test_the_version_is_the_one_in_pyproject_and_changelog(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    assert linne.__version__ == project["version"]
    assert f"## {linne.__version__}" in (repository / "CHANGELOG.md").read_text("utf-8")
