"""The page for people who come from another program: every command in its tables can be typed."""

import re
import shlex

import click
import pytest

from linne.cli import cli
from linne.recipes import RECIPES


@pytest.fixture(scope="module")
def page(repository):
    return repository.joinpath("docs/guides/coming-from.md").read_text("utf-8")


def rows(page):
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


def commands(page):
    return [command for row in rows(page) for command in re.findall(r"`(linne \w+ [^`]+)`", row[1])]


def test_every_command_in_the_tables_is_understood(page):
    assert len(commands(page)) > 25
    for typed in commands(page):
        words, command, path = shlex.split(typed)[1:], cli, "linne"
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            path, command = f"{path} {words[0]}", command.get_command(click.Context(command), words.pop(0))
            assert command is not None, typed
        if not isinstance(command, click.Group):
            command.make_context(path, words)  # raises what the user would see


def test_every_recipe_in_the_tables_is_built_in(page):
    named = re.findall(r"--recipe (\S+?)[ `]", page)
    assert named
    assert set(named) <= set(RECIPES)


def test_every_step_has_an_answer(page):
    assert [len(row) for row in rows(page)] == [3] * len(rows(page))
    assert not [row for row in rows(page) if not row[1]]
