"""`linne launch`: options in, `linne train` in several processes, started again when some of them die."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import click

from linne.errors import LinneError


@click.command("launch", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--nproc", type=click.IntRange(1), metavar="N", help="Processes on this machine; default: accelerators.")
@click.option("--nodes", type=click.IntRange(1), default=1, metavar="N", help="Machines; each runs this command.")
@click.option("--node-rank", type=click.IntRange(0), default=0, metavar="R", help="Which of them this is, from 0.")
@click.option("--rendezvous", metavar="HOST:PORT", help="Where machine 0 is reached; the port above is used too.")
@click.option("--address", metavar="HOST", help="How other machines reach this one, if not by its own name.")
@click.option("--max-restarts", type=click.IntRange(0), default=10, show_default=True, metavar="N", help="In all.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="train ...")
def command(
    nproc: int | None,
    nodes: int,
    node_rank: int,
    rendezvous: str | None,
    address: str | None,
    max_restarts: int,
    arguments: tuple[str, ...],
) -> None:
    """Train in several processes, on this machine or on several, and start them again when some die.

    What follows `train` is as for `linne train`; the batch size is that of all processes together.
    Restarts go on from the newest checkpoint.

    \b
    linne launch --nproc 2 train cifar10 --output runs/two
    linne launch --nodes 2 --node-rank 0 --rendezvous first.example:29400 --nproc 8 train ...
    """
    from linne.launching.machines import Machines
    from linne.launching.supervisor import OneMachine, Starter, Supervisor
    from linne.log import Narrator

    host, port = _parse_rendezvous(nodes, node_rank, rendezvous)
    words, output = _settle(arguments, nodes)
    narrator, num_processes = Narrator(quiet="--quiet" in words), nproc or _accelerators()
    starter: Starter = OneMachine(num_processes)
    if nodes > 1:
        starter = Machines(
            num_nodes=nodes,
            node_rank=node_rank,
            host=host,
            port=port,
            num_processes=num_processes,
            narrator=narrator,
            address=address,
        )
    supervisor = Supervisor(starter=starter, narrator=narrator, run=output, max_restarts=max_restarts)
    try:
        raise SystemExit(supervisor.train(words))
    finally:
        with contextlib.suppress(OSError):
            output.rmdir()  # where nothing was ever written


def _parse_rendezvous(nodes: int, node_rank: int, rendezvous: str | None) -> tuple[str, int]:
    """Return where machine 0 is; nothing is asked of one machine.

    Raises:
        click.UsageError: the options of several machines do not fit together.
    """
    context = click.get_current_context()
    if node_rank >= nodes:
        raise click.UsageError(f"--node-rank is {node_rank}, expected 0 to {nodes - 1}, as --nodes is {nodes}", context)
    if nodes == 1:
        return "localhost", 0
    host, _, port = (rendezvous or "").rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65535):
        said = "is missing" if rendezvous is None else f"is `{rendezvous}`"
        raise click.UsageError(f"--rendezvous {said}, expected HOST:PORT of machine 0", context)
    return host, int(port)


def _settle(arguments: tuple[str, ...], nodes: int) -> tuple[list[str], Path]:
    """Return the arguments of the processes, which say where to go on, and the run folder.

    Raises:
        click.UsageError: they are not those of `linne train`.
    """
    from linne.cli.train import command as train
    from linne.log import Run

    context = click.get_current_context()
    if arguments[:1] != ("train",):
        raise click.UsageError(f"`{context.command_path}` starts `train ...`, and nothing else", context)
    parsed = train.make_context("train", list(arguments[1:]), parent=context.parent)
    words, output = list(arguments), parsed.params["output"]
    if output is None:
        if nodes > 1:
            raise LinneError("several machines need one name for the run", hint="--output DIR, the same on all")
        name = parsed.params["source"] or parsed.params["recipe"] or "run"
        output = Run.create(None, re.sub(r"\.json$|^\w+:", "", name).rpartition("/")[2]).path
        words += ["--output", str(output)]
    if not parsed.params["resume"]:
        words += ["--resume", "auto"]
    return words, Path(output)


def _accelerators() -> int:
    """Return how many accelerators of one kind there are; 1 where there is none.

    A child looks: a process that has looked holds memory of the first accelerator for as long as it lives.
    """
    look = "from linne.device.picking import *; import sys; sys.stdout.write(str(count_of(Device.pick('auto'))))"
    return int(subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout)
