"""The documentation names what the code has, and nothing that is not there."""

import re

import pytest

from linne.cli import VERBS
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
