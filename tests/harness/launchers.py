"""Many processes that launch at the same moment, below one cap."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from gpucloud.model import utcnow
from gpucloud.store.budget import Cap
from tests.harness.books import line_from, opened, other_process

EACH: Final = Decimal("2.50")
"""What one launch can cost at most."""

_LAUNCH: Final = """
from datetime import timedelta
from decimal import Decimal
from gpucloud.errors import BudgetRefused
from gpucloud.model import *
from gpucloud.store.budget import Cap
name, held_first = f"c{sys.argv[2]}", int(sys.argv[2]) % 2
each, allowed = map(Decimal, sys.argv[3:])
print("ready", flush=True)
for line in sys.stdin:
    store, now = Store(Path(line.rstrip("\\n"))), utcnow()
    caps = [Cap("day", each * allowed, now - timedelta(hours=1))]
    token, cluster = f"gc-{name}", None
    try:
        # Some hold what they can cost from the first on, some only with the intent.
        most = each if held_first else Decimal(0)
        cluster = store.clusters.create(name, 1, ephemeral=False, most=most, caps=caps)
        store.journal.intend(
            Rental(token, cluster.id, 0, RentalState.INTENDED, "acme", "big", Market.SPOT, now, each,
                   expires_at=now + timedelta(hours=1)), caps)
        store.journal.accept(token, Instance("acme", InstanceRef(f"i-{name}"), InstanceState.RUNNING, token))
        print("launched", flush=True)
    except BudgetRefused as error:
        if cluster:
            store.clusters.update(cluster.id, ClusterState.ENDED)
        print(f"{error.message}; {error.why}", flush=True)
    store.db.close()
"""


@contextmanager
def launchers(count: int, allowed: int, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that wait for the word to launch, under a cap that is enough for ``allowed`` of them."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                other_process(_LAUNCH, folder, str(number), str(EACH), str(allowed), opens=False)
            )
            for number in range(count)
        ]
        for process in processes:
            assert line_from(process) == "ready"
        yield processes


def launch_at_once(processes: Sequence[subprocess.Popen[str]], folder: Path, allowed: int) -> None:
    """Have all of them launch into fresh books, and look at what has come of it."""
    since = utcnow() - timedelta(hours=1)
    with opened(folder) as store:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        answers = [line_from(process) for process in processes]
        refusals = [answer for answer in answers if answer != "launched"]
        assert answers.count("launched") == allowed, answers
        for refusal in refusals:
            assert refusal.startswith(f"the cap of ${EACH * allowed} a day would be passed; "), refusal
        living = {cluster.name for cluster in store.clusters.living()}
        assert living == {f"c{n}" for n, answer in enumerate(answers) if answer == "launched"}
        assert {rental.token for rental in store.journal.rentals(gone=True)} == {f"gc-{n}" for n in living}
        uses = store.budget.uses(Cap("day", EACH * allowed, since))
        assert sum(use.usd for use in uses) == EACH * allowed
