"""A child process that may do anything: what is kept of it, and that nothing of it is raised here."""

import os
import sys
import time

import pytest

from linne.child import listen, report_line

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")


@pytest.fixture
def hear(tmp_path):
    """Run some lines of Python as the child."""

    def hear(code, limit_s=30.0, *words):
        script = tmp_path / "child.py"
        script.write_text(code, "utf-8")
        return listen([sys.executable, str(script), *words], environ=os.environ, limit_s=limit_s)

    return hear


def test_reports_are_heard_in_order(hear):
    heard = hear('print(\'{"linne": "a", "n": 1}\')\nprint(\'{"linne": "b"}\')')
    assert (heard.end, heard.how) == ("done", "exit code 0")
    assert heard.events == ({"linne": "a", "n": 1}, {"linne": "b"})


def test_what_is_reported_is_what_is_heard(hear):
    line = report_line("result", text="two\nlines, `ü`", number=1.5)
    heard = hear(f"import sys; sys.stdout.write({line!r})")
    assert heard.events == ({"linne": "result", "text": "two\nlines, `ü`", "number": 1.5},)


def test_noise_is_left_out_and_what_follows_it_on_its_line_is_not(hear):
    heard = hear(
        "import sys\n"
        'sys.stdout.buffer.write(b\'\\xff\\x00 MIOpen(HIP): Warning {"linne": "kept"}\\n\')\n'
        "print('{\"gpu\": 1}'); print('{\"linne\": 5}'); print('{\"linne\"'); print('{\"linne\": ' + '[' * 100000)\n"
    )
    assert heard.events == ({"linne": "kept"},)


def test_an_error_of_the_child_is_its_exit_code_and_last_line(hear):
    heard = hear("print('{\"linne\": \"a\"}', flush=True)\nraise OSError('libhsa-runtime64.so.1: no such file')")
    assert (heard.end, heard.how) == ("failed", "exit code 1")
    assert heard.said == "OSError: libhsa-runtime64.so.1: no such file"
    assert len(heard.events) == 1


@POSIX
def test_a_crash_is_named_by_its_signal_and_keeps_what_came_before(hear):
    heard = hear('import os, signal\nprint(\'{"linne": "a"}\', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)')
    assert (heard.end, heard.how, len(heard.events)) == ("crashed", "ended by SIGSEGV", 1)


@pytest.mark.slow
def test_a_hang_ends_at_the_limit_and_keeps_what_came_before(hear):
    start = time.monotonic()
    heard = hear('import time\nprint(\'{"linne": "a"}\', flush=True)\ntime.sleep(60)', 1.5)
    assert time.monotonic() - start < 15
    assert (heard.end, heard.how, len(heard.events)) == ("hung", "no end within 1.5 s", 1)


@POSIX
@pytest.mark.slow
def test_a_hanging_child_that_ignores_signals_is_ended_with_its_own_children(hear, tmp_path):
    heard = hear(
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(60)",
        2.0,
        str(tmp_path / "pid"),
    )
    assert heard.end == "hung"
    grandchild = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while is_running(grandchild) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(grandchild)


def is_running(pid):
    """Return whether the process works still; one that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_that_never_stops_talking_is_ended_before_it_fills_the_disk(hear):
    heard = hear("while True: print('x' * 10000)", 60.0)
    assert (heard.end, heard.how) == ("flooded", "more than 4 MiB of output")


def test_a_program_that_is_not_there_is_a_finding_too():
    heard = listen(["/no/such/program"], environ={}, limit_s=1)
    assert heard.end == "not started"
    assert heard.how.startswith("`/no/such/program` cannot be started: ")
