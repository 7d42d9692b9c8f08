"""The command line: what it says, where, and with which exit code. Verbs that need a bundle: test_cli_verbs.py."""

import json
import signal
import subprocess
import sys
import textwrap

import click
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

import linne
from linne import models
from linne.cli import VERBS, LazyGroup, cli, complete, failures, rows
from linne.cli.console import aligned
from linne.errors import CheckFailed, LinneError
from linne.inference.predictor import Prediction
from linne.models.provider import BY_PLACE


def invoke(*words, **options):
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="linne", **options)


def test_without_a_verb_it_shows_the_help():
    bare, asked, short = invoke(), invoke("--help"), invoke("-h")
    assert bare.exit_code == asked.exit_code == short.exit_code == 0
    assert bare.stdout == asked.stdout == short.stdout
    assert asked.stdout.startswith("Usage: linne [OPTIONS] VERB ...\n")


def test_the_help_lists_every_verb_with_its_line():
    listed = invoke("--help").stdout.partition("Verbs:\n")[2].splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [[name, text] for name, (_, text) in VERBS.items()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    ended = invoke(verb, "--help")
    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"Usage: linne {verb} ")


def test_it_says_its_version():
    assert invoke("--version").stdout == f"linne {linne.__version__}\n"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["trian"], "no verb `trian`", "did you mean `train`?"),
        (["cook"], "no verb `cook`", "`linne --help` lists the verbs"),
        (["--verbose"], "no option `--verbose` for `linne`", "did you mean `--version`?"),
        (["train"], "`linne train` needs SOURCE", "`linne train --help` shows what it takes"),
        (["train", "digits", "--epoch", "3"], "no option `--epoch` for `linne train`", "did you mean `--epochs`?"),
        (
            ["train", "digits", "--epochs", "many"],
            "`--epochs`: `many` is not a valid integer",
            "`linne train --help` shows what it takes",
        ),
        (
            ["train", "digits", "--set", "optim.lr"],
            "`--set`: `optim.lr` is not `section.field=value`",
            "`linne train --help` shows what it takes",
        ),
        (
            ["train", "digits", "--epochs", "5", "--set", "optim.epochs=6"],
            "`--epochs 5` and `--set optim.epochs=6` disagree",
            "`linne train --help` shows what it takes",
        ),
        (
            ["train", "digits", "--set", "optim.lr=0.1", "--set", "optim.lr=0.2"],
            "`--set optim.lr=0.1` and `--set optim.lr=0.2` disagree",
            "`linne train --help` shows what it takes",
        ),
        (["predict", "bundle"], "`linne predict` needs INPUT...", "`linne predict --help` shows what it takes"),
        (
            ["predict", "bundle", "a.png", "--top", "0"],
            "`--top`: 0 is not in the range x>=1",
            "`linne predict --help` shows what it takes",
        ),
        (
            ["predict", "bundle", "a.png", "--format", "xml"],
            "`--format`: `xml` is not one of `text`, `json`, `jsonl`, `csv`",
            "`linne predict --help` shows what it takes",
        ),
        (
            ["predict", "bundle", "a.png", "--json", "--format", "csv"],
            "`--json` and `--format csv` disagree",
            "`linne predict --help` shows what it takes",
        ),
        (["data", "lst"], "no verb `lst`", "did you mean `list`?"),
    ],
)
def test_a_command_line_that_is_not_understood_says_what_to_type(words, error, hint):
    ended = invoke(*words)
    assert ended.stderr == f"error: {error}\n\nhint: {hint}\n"
    assert (ended.exit_code, ended.stdout) == (2, "")


def test_a_misspelt_field_is_the_users_mistake_and_gets_the_nearest_one():
    ended = invoke("train", "digits", "--set", "optim.epoch=3")
    assert ended.exit_code == 1
    assert ended.stderr == "error: no recipe field `optim.epoch`\n\nhint: did you mean `optim.epochs`?\n"


def a_group_that(failure):
    """Return linne's kind of group, which raises `failure` when it is run."""

    def fail():
        raise failure

    return LazyGroup("linne", verbs=VERBS, invoke_without_command=True, callback=fail)


@pytest.mark.parametrize(
    ("failure", "said", "code"),
    [
        (LinneError("no file `a`"), "error: no file `a`\n", 1),
        (LinneError("no file `a`", hint="type `b`"), "error: no file `a`\n\nhint: type `b`\n", 1),
        (CheckFailed("the loss became nan"), "error: the loss became nan\n", 3),
        (
            ValueError("one\ntwo"),
            "error: unexpected ValueError: one\n\n"
            "hint: this is a fault in linne or in a library below it; set LINNE_DEBUG=1 to see where\n"
            "when you report it, attach `doctor.json`: linne doctor --json > doctor.json\n",
            1,
        ),
        (
            PermissionError(13, "Permission denied", "runs"),
            "error: `runs`: permission denied\n\nhint: set LINNE_DEBUG=1 to see where\n",
            1,
        ),
        (KeyboardInterrupt(), "\ninterrupted\n", 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_ends_in_a_sentence_and_an_exit_code(failure, said, code):
    ended = CliRunner().invoke(a_group_that(failure), [])
    assert (ended.stderr, ended.exit_code, ended.stdout) == (said, code, "")


def test_debug_shows_where_an_unexpected_failure_happened():
    group = a_group_that(ValueError("one"))
    quiet = CliRunner().invoke(group, [])
    asked = CliRunner().invoke(group, [], env={"LINNE_DEBUG": "1"})
    assert "Traceback" not in quiet.stderr
    assert asked.stderr.startswith("Traceback (most recent call last):\n")
    assert asked.stderr.endswith(quiet.stderr)
    assert asked.stderr.splitlines()[-1] == failures.ATTACH
    assert asked.exit_code == 1


def test_debug_may_also_be_typed(tmp_path):
    ended = invoke("--debug", "train", "digits", "--set", "optim.epoch=3")
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("hint: did you mean `optim.epochs`?\n")


ANSWERS = [
    Prediction("a.png", ("cat", "wolf hound"), (0.98, 0.02), logits=(4.0, 0.1)),
    Prediction("bad.png", (), (), error="not an image"),
    Prediction("long name.png", ("köttur", "cat"), (0.75, 0.25), logits=(1.5, 0.4)),
]


def lines(style, answers):
    return "\n".join(rows.FORMATS[style](answers))


def test_text_shows_each_file_with_its_labels_in_columns():
    assert lines("text", ANSWERS) == textwrap.dedent("""\
        a.png:
          cat          98.0 %
          wolf hound    2.0 %
        bad.png:  error: not an image
        long name.png:
          köttur   75.0 %
          cat      25.0 %""")


def test_text_with_one_label_is_one_line_a_file():
    best = [prediction.first(1) for prediction in ANSWERS]
    assert lines("text", best) == textwrap.dedent("""\
        a.png:  cat  98.0 %
        bad.png:  error: not an image
        long name.png:  köttur  75.0 %""")


def test_json_is_one_list_with_a_row_a_file():
    assert json.loads(lines("json", ANSWERS)) == [
        {
            "file": "a.png",
            "predictions": [
                {"label": "cat", "probability": 0.98, "logit": 4.0},
                {"label": "wolf hound", "probability": 0.02, "logit": 0.1},
            ],
        },
        {"file": "bad.png", "error": "not an image"},
        {
            "file": "long name.png",
            "predictions": [
                {"label": "köttur", "probability": 0.75, "logit": 1.5},
                {"label": "cat", "probability": 0.25, "logit": 0.4},
            ],
        },
    ]
    assert json.loads(lines("json", ANSWERS[:1]))[0]["file"] == "a.png"
    assert json.loads(lines("json", [])) == []


def test_jsonl_is_one_object_a_line():
    text = lines("jsonl", ANSWERS)
    assert [json.loads(line) for line in text.splitlines()] == json.loads(lines("json", ANSWERS))


def test_csv_is_one_line_a_label_with_its_rank():
    assert lines("csv", ANSWERS).splitlines() == [
        "file,rank,label,probability,error",
        "a.png,1,cat,0.98,",
        "a.png,2,wolf hound,0.02,",
        "bad.png,,,,not an image",
        "long name.png,1,köttur,0.75,",
        "long name.png,2,cat,0.25,",
    ]


@pytest.mark.parametrize("style", rows.FORMATS)
def test_rows_come_as_soon_as_they_are_known(style):
    def answers():
        yield ANSWERS[0]
        pytest.fail("asked for the second answer before giving the first")

    assert any(
        "a.png" in line
        for line, _ in zip(rows.FORMATS[style](answers()), range(2 if style == "csv" else 1), strict=False)
    )


def test_columns_count_what_a_terminal_shows():
    assert aligned([("猫", "1"), ("dog", "22")]) == "猫   1\ndog  22"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_completion_script_says_where_it_goes(shell):
    if get_completion_class(shell) is None:
        pytest.skip(f"this click writes no script for {shell}; 8.5 does")
    ended = invoke("completion", shell)
    assert ended.exit_code == 0
    script, _, last = ended.stdout.rstrip("\n").rpartition("\n")
    assert last.startswith("# ")
    assert f"linne completion {shell}" in last
    assert "_LINNE_COMPLETE" in script


def completions(*words):
    """Return what Tab offers after `words`, asked the way click's bash script asks."""
    env = {"_LINNE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["linne", *words]), "COMP_CWORD": str(len(words))}
    ended = invoke(env=env)
    assert ended.exit_code == 0
    return [line.partition(",")[2] for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tr"], ["train", "trace"]),
        (["trace", "p"], ["predict"]),
        (["trace", "train", "dig"], ["digits"]),
        (["train", "dig"], ["digits"]),
        (["train", "digits", "--model", "s"], ["small", "speedrun"]),
        (["train", "digits", "--model", ""], ["small", "speedrun", "lenet", "mlp", "timm/", "torchvision/"]),
        (["train", "digits", "--model", "torchvision/resnet18"], ["torchvision/resnet18"]),
        (["train", "digits", "--set", "optim.ep"], ["optim.epochs="]),
        (["train", "digits", "--recipe", "qui"], ["quick"]),
        (["train", "digits", "--epo"], ["--epochs"]),
        (["predict", "b", "x", "--format", "js"], ["json", "jsonl"]),
    ],
)
def test_tab_completes(typed, offered):
    assert completions(*typed) == offered


def test_tab_asks_for_folders_when_no_source_is_meant():
    assert [item.type for item in complete.sources(None, None, "photos/")] == ["dir"]


def test_tab_knows_our_own_networks_and_every_provider():
    own = "linne"
    assert sorted(complete.OWN) == models.load_provider(own).names()
    assert [own, *complete.PROVIDERS] == [provider for provider in models.PROVIDERS if provider not in BY_PLACE]


@pytest.mark.parametrize("provider", complete.PROVIDERS)
def test_tab_offers_exactly_the_names_that_a_provider_registers(provider):
    libraries = {"timm": "timm", "torchvision": "torchvision.models"}
    library = pytest.importorskip(libraries[provider], reason=f"{provider} is not installed")
    options = {"module": library} if provider == "torchvision" else {}
    assert complete.names_in_source(provider) == sorted(library.list_models(**options))


def test_click_sentences_are_said_in_the_house_voice():
    assert failures.explain(click.ClickException("Could not open 'x'.")) == ("could not open `x`", None, 1)


def test_python_dash_m_linne_is_linne(python):
    ended = python("-m", "linne", "trian")
    assert ended.returncode == 2
    assert ended.stderr == "error: no verb `trian`\n\nhint: did you mean `train`?\n"
    assert python("-m", "linne", "--version").stdout == f"linne {linne.__version__}\n"


ENDLESS = """
import click
from linne.cli import VERBS, LazyGroup
def say():
    while True: click.echo("line")
LazyGroup("linne", verbs=VERBS, invoke_without_command=True, callback=say)()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_has_seen_enough_ends_it_quietly():
    writer = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "line\n"
    writer.stdout.close()
    assert writer.wait(timeout=20) == 141
    assert writer.stderr.read() == ""
    writer.stderr.close()


WAITING = """
import signal, sys, time
from linne.cli import VERBS, LazyGroup
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without it
def wait():
    sys.stdout.write("ready\\n"); sys.stdout.flush()
    time.sleep(60)
LazyGroup("linne", verbs=VERBS, invoke_without_command=True, callback=wait)()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_order_with_the_code_shells_expect(number, code):
    child = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    _, said = child.communicate(timeout=20)
    assert (child.returncode, said.strip()) == (code, "interrupted")
