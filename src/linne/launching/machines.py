"""Several machines that start together, notice together when one fails, and agree on what an attempt came to.

Each runs a supervisor. They meet in a store of torch's that machine 0 keeps for as long as it lives; torchrun has
another one, anew for each attempt. A machine that does not write there for a while is taken for lost: of a cable that
is cut nothing else tells for hours.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from linne.errors import LinneError
from linne.launching.attempt import QUIET_TORCH, Attempt
from linne.launching.outcomes import Verdict
from linne.log import Narrator

BEAT_SECONDS = 1.0
LOST_SECONDS = 15.0
"""Of silence, after which a machine is taken for lost."""
JOIN_SECONDS = 900.0
"""How long machines wait for one another: until a machine has booted."""
AGREE_SECONDS = 90.0
"""How long they wait for what an attempt came to on the others."""
CONNECT = datetime.timedelta(seconds=10)


@dataclass(eq=False, kw_only=True, slots=True)
class Machines:
    """Starts this machine's processes when all machines are there."""

    num_nodes: int
    node_rank: int
    host: str
    port: int
    num_processes: int
    narrator: Narrator
    address: str | None = None
    """How the other machines reach this one."""
    _kept: Any = None
    """Machine 0's store, which lives as long as its supervisor."""
    _meeting: _Meeting | None = None
    _latest: str = ""
    """The name of the latest attempt. Not a number: machine 0 may be a new one that counts from the start."""

    def start(self, arguments: Sequence[str]) -> Attempt:
        """Return the next attempt, begun when all machines are there.

        Raises:
            LinneError: one of them did not come.
        """
        if self.node_rank == 0 and self._kept is None:
            self._kept = self._connect(keep=True)
        store = self._kept if self.node_rank == 0 else self._reach()
        self._latest = self._gather(store) if self.node_rank == 0 else self._join(store)
        self._meeting = _Meeting(self.num_nodes, self.node_rank, self._latest, self._reach())
        self._meeting.begin()
        return Attempt.start(
            arguments,
            run_id=self._latest,
            num_processes=self.num_processes,
            num_nodes=self.num_nodes,
            node_rank=self.node_rank,
            endpoint=f"{self.host}:{self.port + 1}",
            address=self.address,
        )

    def must_end(self) -> str | None:
        """Return which machine is lost or has failed, or None."""
        assert self._meeting is not None
        return self._meeting.problem

    def agree(self, verdict: Verdict) -> Verdict:
        """Return what the attempt came to on all machines; on this one alone where the others cannot be reached."""
        assert self._meeting is not None
        meeting, self._meeting = self._meeting, None
        return meeting.agree(verdict)

    def _connect(self, *, keep: bool = False) -> Any:
        os.environ.setdefault(*QUIET_TORCH)
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        try:
            return TCPStore(self.host, self.port, is_master=keep, wait_for_workers=False, timeout=CONNECT)
        except RuntimeError as error:
            if keep:
                raise LinneError(
                    f"machine 0 cannot keep the rendezvous at `{self.host}:{self.port}`: {str(error).splitlines()[0]}",
                    hint="--rendezvous names an address of machine 0, with a port that is free, as is the one above",
                ) from error
            raise

    def _reach(self) -> Any:
        """Return a connection to the store of machine 0, when it is there."""
        end = time.monotonic() + JOIN_SECONDS
        while True:
            try:
                return self._connect()
            except RuntimeError:
                if time.monotonic() > end:
                    raise LinneError(
                        f"machine 0 cannot be reached at `{self.host}:{self.port}`",
                        hint="start `linne launch --node-rank 0` there, and let that port and the one above through",
                    ) from None
                time.sleep(BEAT_SECONDS)

    def _gather(self, store: Any) -> str:
        """Announce the next attempt as machine 0, wait for all machines, and return its name."""
        attempt = uuid4().hex
        store.set("attempt", attempt)
        keys = [f"here/{attempt}/{node}" for node in range(1, self.num_nodes)]
        if not _wait(lambda: bool(store.check(keys)), JOIN_SECONDS):
            missing = [node for node, key in enumerate(keys, 1) if not store.check([key])]
            raise LinneError(
                f"machine {missing[0]} of {self.num_nodes} did not come in {JOIN_SECONDS / 60:g} minutes",
                hint="each machine runs the same command with its own --node-rank",
            )
        store.set(f"go/{attempt}", "1")
        return attempt

    def _join(self, store: Any) -> str:
        """Come to the attempt that machine 0 has announced, and return its name when all have come."""
        end = time.monotonic() + JOIN_SECONDS
        while time.monotonic() < end:
            if store.check(["attempt"]):
                attempt: str = store.get("attempt").decode()
                if attempt != self._latest:
                    store.set(f"here/{attempt}/{self.node_rank}", "1")
                    if store.check([f"go/{attempt}"]):
                        return attempt
            time.sleep(0.1)
        raise LinneError("not all machines came", hint="each machine runs the same command with its own --node-rank")


@dataclass(eq=False)
class _Meeting:
    """One attempt, as the machines tell each other of it; a thread tells and listens."""

    num_nodes: int
    node_rank: int
    attempt: str
    store: Any
    _failed: str | None = None
    _heard: float = field(default_factory=time.monotonic)
    """When the store last answered."""
    _over: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        """Begin to tell and to listen."""
        # A daemon: an exchange over a cut cable may never end.
        threading.Thread(target=self._beat, name="meeting", daemon=True).start()

    @property
    def problem(self) -> str | None:
        """Why the attempt cannot go on."""
        if self._failed is None and time.monotonic() - self._heard > LOST_SECONDS:
            return f"machine 0 was not heard of for {LOST_SECONDS:g} s"
        return self._failed

    def _others(self) -> list[int]:
        return [node for node in range(self.num_nodes) if node != self.node_rank]

    def _beat(self) -> None:
        """Tell that this machine lives, and listen for the others."""
        beats: dict[int, tuple[int, float]] = {}
        try:
            while not self._over.is_set():
                self.store.add(f"beat/{self.attempt}/{self.node_rank}", 1)
                for node in self._others():
                    self._failed = self._failed or self._failure_of(node)
                    if self.node_rank == 0:
                        self._failed = self._failed or self._silence_of(node, beats)
                self._heard = time.monotonic()
                self._over.wait(BEAT_SECONDS)
        except RuntimeError:
            self._failed = self._failed or "machine 0 cannot be reached any more"

    def _failure_of(self, node: int) -> str | None:
        key = f"end/{self.attempt}/{node}"
        if not self.store.check([key]):
            return None
        verdict = Verdict.from_dict(json.loads(self.store.get(key)))
        # One that has ended well, or saved and left, waits for this one to do the same.
        ended_well = verdict.code is not None and not 0 < verdict.code < 128
        return None if ended_well else f"machine {node}: {'; '.join(verdict.lines)}"

    def _silence_of(self, node: int, beats: dict[int, tuple[int, float]]) -> str | None:
        count, now = self.store.add(f"beat/{self.attempt}/{node}", 0), time.monotonic()
        if node not in beats or beats[node][0] != count:
            beats[node] = count, now
        silent = now - beats[node][1] > LOST_SECONDS and not self.store.check([f"end/{self.attempt}/{node}"])
        return f"machine {node} was not heard of for {LOST_SECONDS:g} s" if silent else None

    def agree(self, verdict: Verdict) -> Verdict:
        """Return what the attempt came to on all machines, or `verdict` where they cannot be asked."""
        found = [verdict]
        # In a thread, which may never end: see above.
        thread = threading.Thread(target=lambda: found.append(self._agree(verdict)), daemon=True)
        thread.start()
        thread.join(AGREE_SECONDS + LOST_SECONDS)
        self._over.set()
        return found[-1]

    def _agree(self, verdict: Verdict) -> Verdict:
        keys = {node: f"end/{self.attempt}/{node}" for node in range(self.num_nodes)}
        joint = f"verdict/{self.attempt}"
        try:
            self.store.set(keys[self.node_rank], json.dumps(verdict.to_dict()))
            if self.node_rank > 0:
                if not _wait(lambda: bool(self.store.check([joint])), AGREE_SECONDS):
                    return verdict
                agreed = Verdict.from_dict(json.loads(self.store.get(joint)))
                self.store.set(f"read/{self.attempt}/{self.node_rank}", "1")
                return agreed
            _wait(lambda: bool(self.store.check(list(keys.values()))) or self._is_lost(), AGREE_SECONDS)
            ends = [
                Verdict.from_dict(json.loads(self.store.get(key))) if self.store.check([key]) else Verdict(None)
                for key in keys.values()
            ]
            agreed = join_verdicts(ends)
            self.store.set(joint, json.dumps(agreed.to_dict()))
            # They read it from here: do not leave before.
            readers = [f"read/{self.attempt}/{node}" for node in self._others()]
            _wait(lambda: bool(self.store.check(readers)) or self._is_lost(), LOST_SECONDS)
            return agreed
        except RuntimeError:
            return verdict

    def _is_lost(self) -> bool:
        return self._failed is not None and "not heard of" in self._failed


def join_verdicts(ends: Sequence[Verdict]) -> Verdict:
    """Return what an attempt came to that ended on each machine as in `ends`: a user's error decides.

    The place is machine 0's: the run folder is on its disk, if nowhere else.
    """
    at: dict[str, Any] = {"place": ends[0].place, "moved": ends[0].moved}
    errors = [end for end in ends if end.code is not None and 0 < end.code < 128]
    if errors:
        return replace(next((end for end in errors if end.lines), errors[0]), **at)
    codes = [end.code for end in ends if end.code is not None]
    if len(codes) == len(ends):
        return Verdict(max(codes), **at)
    failed = [end for end in ends if end.code is None]
    fewest = min((end.micro_batch for end in failed if end.micro_batch is not None), default=None)
    if fewest is not None:  # on the others it looks like a partner that is lost
        failed = [end for end in failed if end.micro_batch is not None]
    lines = dict.fromkeys(line for end in failed for line in end.lines)
    return Verdict(None, tuple(lines) or ("a machine was lost",), micro_batch=fewest, **at)


def _wait(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds, at most so long, and return whether it does."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
