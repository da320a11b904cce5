"""``gpucloud demo``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from gpucloud.cli.app import app
from gpucloud.cli.render import money, out
from gpucloud.errors import OutputsNotVerified

MARKET: Final = "sim:stockout=1,boot=1s,interrupt@asked,notice=20s"
STEPS: Final = 40

TRAIN: Final = """\
step=0
if [ -f checkpoint ]; then
  step=$(cat checkpoint)
  echo "resuming at step $step"
fi
trap 'echo "$step" > checkpoint; echo "told to stop: checkpoint at step $step"; exit 1' TERM
while [ "$step" -lt 40 ]; do
  sleep 0.2
  step=$((step + 1))
  [ $((step % 10)) -ne 0 ] || echo "step $step of 40"
  [ "$step" -ne 15 ] || touch ~/.interrupt
done
echo "$step" > checkpoint
echo "trained for $step steps" > result.txt
"""


@app.command()
def demo() -> None:
    """A whole run on a simulated market: out of stock, interrupted, resumed, verified, ended. Costs nothing.

    Example: gpucloud demo
    """
    place = Path(tempfile.mkdtemp(prefix="gpucloud-demo-"))
    try:
        out.note("A simulated market; nothing is rented, no account and no network is needed.")
        out.note(f"Its script: {MARKET}")
        _play(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _play(place: Path) -> None:
    """Play it with books, keys and machines of its own in ``place``."""
    from gpucloud.cli.consent import describe
    from gpucloud.cli.context import fleet
    from gpucloud.cli.run import log_sink
    from gpucloud.fleet.plan import LaunchRequest, plan
    from gpucloud.fleet.reconcile import fsck
    from gpucloud.jobs.run import RunOptions, run
    from gpucloud.model import GpuWish, JobSpec, Market, Requirements

    project = place / "project"
    project.mkdir()
    (project / "train.sh").write_text(TRAIN)
    here = fleet(data_dir=place / "data")
    wanted = Requirements(gpus=(GpuWish.parse("RTX4090"),), markets=(Market.SPOT,))
    made = plan(here, LaunchRequest("demo", wanted, ephemeral=True), (MARKET,))
    for line in describe(here, made):
        out.note(line)
    spec = JobSpec(run="sh train.sh", workdir=str(project), outputs=("checkpoint", "result.txt"), name="demo")
    options = RunOptions(restarts=3, references=(MARKET,))
    with log_sink() as sink:
        result = run(here, made, spec, options, sink)
    report = fsck(here)
    home = (project / "result.txt").read_text().strip() if (project / "result.txt").exists() else ""
    if home != f"trained for {STEPS} steps" or report.findings or report.failures:
        raise OutputsNotVerified(
            "the demo did not end as it must", why=repr(home), hint="gpucloud demo --debug"
        )
    if out.json:
        out.document(
            "demo",
            job=result.job.id,
            attempts=result.job.attempts,
            exit_code=result.exit_code,
            cost=money(result.cost),
            currency="USD",
            failures=[],
        )
    out.note(f"result.txt came home: {home!r}, in {result.job.attempts} attempts")
    out.note(f"all machines are gone, confirmed by listing; simulated cost ${result.cost or 0:.4f}")
    out.note("next: gpucloud offers, then gpucloud run -- COMMAND")
