"""What a training says and writes down after its last step."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from linne.errors import CheckFailed
from linne.log import Narrator, Run, clock

if TYPE_CHECKING:
    from linne.planning import Plan
    from linne.report import EvalReport
    from linne.training.loop import Trained

NUM_NAMED = 10
"""Images that were left out which a run names as it ends; the report has all."""


def conclude(
    run: Run, plan: Plan, trained: Trained, narrator: Narrator, *, trust_code: bool = False
) -> EvalReport | None:
    """Evaluate the bundle through the same door as any user would, once, and write the reports."""
    from linne.reporting import write_run_report

    for problem in trained.bad_images[:NUM_NAMED]:
        narrator.warn(f"left out: {problem}")
    if len(trained.bad_images) > NUM_NAMED:
        narrator.warn(f"left out: {len(trained.bad_images) - NUM_NAMED} more, named in the report")
    kept, bundle = trained.kept, trained.bundle
    if trained.ending != "finished" or kept is None or bundle is None:
        page = write_run_report(run.path, bundle=bundle, report=None, outcomes=None, split=None)
        what = _say_what_is_left(trained, run, narrator)
        narrator.line(f"report  {page}")
        if trained.checkpoint is not None:
            narrator.line(f"to go on: linne train --output {shlex.quote(str(run.path))} --resume")
        if trained.ending == "diverged":
            hint = f"try a lower learning rate: --lr {plan.recipe.optim.lr / 10:g}"
            raise CheckFailed(f"{trained.problem}; {what}", hint=hint)
        return None
    from linne.bundle import add_metrics
    from linne.evaluation import evaluate as evaluate_bundle
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Predictor
    from linne.run_facts import data_advice, read_run

    split = "test" if "test" in plan.source.splits else "val"
    if split not in plan.source.splits:
        narrator.line(f"\nno examples were held out: nothing to evaluate on. The bundle is {bundle.path}")
        write_run_report(run.path, bundle=bundle, report=None, outcomes=None, split=None)
        return None
    how = RunOptions(device=plan.recipe.device.name, trust_code=trust_code)
    predictor = Predictor.open(bundle, how=how, tta=plan.recipe.tta)
    report, outcomes = evaluate_bundle(predictor, plan.source, split)
    found = {"accuracy": report.accuracy, "interval": list(report.accuracy_interval)}
    bundle = add_metrics(bundle, {split: found if report.tta is None else {**found, "tta": report.tta}})
    page = write_run_report(run.path, bundle=bundle, report=report, outcomes=outcomes, split=plan.source.splits[split])
    minutes = plan.recipe.optim.minutes
    budget = "" if minutes is None else f", with a budget of {clock(60 * minutes)}"
    cuts = trained.recipe.optim.shortened
    of = plan.recipe.optim.epochs if cuts is None else math.ceil(cuts[-1])
    narrator.line(f"\ntrained in {clock(trained.seconds)}{budget}; kept epoch {kept.epoch} of {of}")
    if (advice := data_advice(read_run(run.path))) is not None:
        narrator.line(advice)
    narrator.line(report.one_line())
    narrator.line()
    narrator.table([("bundle", str(bundle.path)), ("report", str(page)), ("plots", str(run.path / "plots"))], "")
    return report


def _say_what_is_left(trained: Trained, run: Run, narrator: Narrator) -> str:
    """Say, and return in a clause, what a training that ended early leaves to be used."""
    kept = trained.kept
    if kept is None:
        what = "there is no bundle, since no epoch was done"
        narrator.line(f"\n{trained.ending} in the first epoch: there is no bundle in {run.path}")
        return what
    of = "" if kept.scores is None else f" ({100 * kept.scores.accuracy:.2f} % right on validation)"
    narrator.line(f"\n{trained.ending}: the weights of epoch {kept.epoch}{of} are kept")
    narrator.line(f"bundle  {run.path / 'bundle'}")
    return f"the weights of epoch {kept.epoch} are kept"


def write_outcome(run: Run, plan: Plan, trained: Trained) -> None:
    """Write into recipe.json what training decided by the clock, so that it repeats whatever the clock says then."""
    from linne.recipes import read_run

    if trained.recipe != plan.recipe:
        document = read_run(run.path / "recipe.json")
        reasons = {**document.get("reasons", {}), "optim.shortened": "as decided by the clock"}
        run.write_json("recipe.json", {**document, "recipe": trained.recipe.to_dict(), "reasons": reasons})
