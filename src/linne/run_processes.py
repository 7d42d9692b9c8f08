"""One run, several processes: the first one plans, talks and writes; the others do as it says."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from linne.errors import LinneError, SourceError
from linne.log import Narrator, Run
from linne.planning import EarlierRun, check_device, open_planned
from linne.recipe import Recipe

if TYPE_CHECKING:
    from linne.data.source import Source
    from linne.run_resume import Start
    from linne.training.checkpoint_format import Checkpoint
    from linne.training.distributed import World


class Lead:
    """What the first process tells the others: what to train, and that it ends, also when it fails before or after.

    While it trains nothing is told: the others are then in the middle of an exchange of their own.
    """

    def __init__(
        self, world: World, narrator: Narrator, guards: Mapping[str, Any], *, measure_speed: bool = False
    ) -> None:
        """The rest is what a training needs besides its plan, as `linne.train` takes it."""
        self.world, self.narrator, self.guards, self.measure_speed = world, narrator, guards, measure_speed
        self._phase: Literal["before", "training", "after"] = "before"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._phase != "training":
            code = error.exit_code if isinstance(error, LinneError) else int(error is not None)
            self.world.from_first({"ended": code})

    def tell(self, start: Start, run: Run) -> None:
        """Tell the others what to train and from where, and wait until all are ready.

        Raises:
            LinneError: one of them cannot.
        """
        world = self.world
        if world.size == 1:
            return
        from linne.training.sending import from_first

        plan, batch = start.plan, start.plan.recipe.data.batch_size
        self.narrator.line(
            f"\n{world.size} processes share every batch of {batch:,}: {-(-batch // world.size):,} each at most"
        )
        facts = {
            "recipe": plan.recipe.to_dict(),
            "fingerprint": plan.source.fingerprint,
            "run": str(run.path.resolve()),
        }
        world.from_first(facts)
        from_first(start.checkpoint, world)
        self._phase = "training"
        problems = [
            problem for problem in world.from_all(_problem_of_device(plan.recipe, world)) if problem is not None
        ]
        if problems:
            raise LinneError(problems[0][0], hint=problems[0][1])

    def training_ended(self) -> None:
        """Note that all processes have ended the training together."""
        self._phase = "after"


def follow(world: World, opened: Source | None) -> tuple[Recipe, Source, Run, Checkpoint | None]:
    """Return what the first process says is trained, and from where, when it and all others are ready.

    Raises:
        SystemExit: it ended before, and has said why; or this process is not ready, and the first one will say why.
    """
    from linne.training.sending import from_first

    told = world.from_first(None)
    if "ended" in told:
        raise SystemExit(told["ended"])
    recipe, run = Recipe.from_dict(told["recipe"]), Run(Path(told["run"]), writes=False)
    checkpoint = from_first(None, world)
    problem, source = None, None
    try:
        source = _open_same(recipe, told["fingerprint"], run) if opened is None else opened
        problem = _problem_of_device(recipe, world)
    except LinneError as error:
        problem = _in_words(error, world)
    if any(found is not None for found in world.from_all(problem)) or source is None:
        raise SystemExit(1)
    return recipe, source, run, checkpoint


def wait_for_end(world: World) -> None:
    """Wait until the first process has evaluated and written what it leaves."""
    world.from_first(None)


def _open_same(recipe: Recipe, fingerprint: str, run: Run) -> Source:
    """Return the source of `recipe`, split as the first process has split it."""
    splits = run.path / "splits.json"
    source = open_planned(recipe.to_fields(), EarlierRun(None, splits if splits.is_file() else None))
    if source.fingerprint != fingerprint:
        raise SourceError(
            f"source `{source.name}` is not the one that the first process has: images, labels or splits differ",
            hint="give every machine the same files",
        )
    return source


def _problem_of_device(recipe: Recipe, world: World) -> list[Any] | None:
    """Return why this process cannot train `recipe`, with a hint; None where it can."""
    from linne.training.distributed import pick_device

    try:
        check_device(recipe, pick_device(recipe.device.name, world))
    except LinneError as error:
        return _in_words(error, world)
    return None


def _in_words(error: LinneError, world: World) -> list[Any]:
    return [f"process {world.rank} of {world.size}, on `{platform.node()}`: {error.message}", error.hint]
