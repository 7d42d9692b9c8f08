"""The documentation names what the code has, and nothing that is not there."""

import ast
import itertools
import re
import shlex

import click
import pytest

import linne
from linne.cli import VERBS, cli
from linne.data import SOURCES
from linne.recipe import recipe_fields


@pytest.fixture(scope="module")
def pages(repository):
    found = [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").rglob("*.md"))]
    return {str(page.relative_to(repository)): page.read_text("utf-8") for page in found}


def test_the_generated_reference_is_what_the_code_says(repository, python):
    ended = python(repository / "scripts/generate_reference", "--check")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("field", recipe_fields())
def test_every_recipe_field_is_in_the_reference(pages, field):
    assert f"| `{field}` |" in pages["docs/reference/recipe.md"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_reference_the_guide_and_the_readme(pages, verb):
    assert f"## `linne {verb}`" in pages["docs/reference/command-line.md"]
    assert f"linne {verb}" in pages["docs/guides/command-line.md"]
    assert f"linne {verb}" in pages["README.md"]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_in_a_guide(pages, source):
    guides = "\n".join(text for name, text in pages.items() if name.startswith("docs/guides/"))
    assert re.search(rf"`{source}[`:]", guides)


def code_blocks(pages, *languages):
    for name, text in pages.items():
        for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if language in languages:
                yield name, code


def test_every_linne_command_in_the_documentation_is_understood(pages):
    seen = 0
    for name, code in code_blocks(pages, "sh", "console"):
        for line in code.replace("\\\n", " ").splitlines():
            typed = line.removeprefix("$ ")
            if typed.split()[:1] != ["linne"]:
                continue
            words = shlex.split(typed, comments=True)
            words = list(itertools.takewhile(lambda word: word not in (">", "|"), words[1:]))
            command, path = cli, "linne"
            while isinstance(command, click.Group) and words and not words[0].startswith("-"):
                path, command = f"{path} {words[0]}", command.get_command(click.Context(command), words.pop(0))
                assert command is not None, f"{name}: {line}"
            if not isinstance(command, click.Group):
                command.make_context(path, words)  # raises what the user would see
            seen += 1
    assert seen > 10


def test_every_python_example_uses_names_that_are_public(pages):
    used = set()
    for name, code in code_blocks(pages, "python"):
        for node in ast.walk(ast.parse(code, filename=name)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "linne":
                used.add(node.attr)
    assert used
    assert used <= set(linne.__all__)


def test_links_between_pages_lead_somewhere(pages, repository):
    broken = []
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (repository / name).parent.joinpath(target).exists():
                broken.append(f"{name} -> {target}")
    assert not broken


def test_the_map_in_the_readme_names_every_module(pages, repository):
    package = repository / "src" / "linne"
    parts = [p.name for p in package.iterdir() if p.suffix == ".py" or (p.is_dir() and (p / "__init__.py").exists())]
    listed = pages["README.md"]
    assert not [name for name in sorted(parts) if not re.search(rf"^\s*{re.escape(name)}\b", listed, re.MULTILINE)]
