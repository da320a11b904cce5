"""The jobs: what was run, where, and how it ended. Secrets are never stored."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TypedDict, Unpack

from gpucloud.errors import NothingMatched
from gpucloud.model import Cluster, Job, JobSpec, JobState, utcnow
from gpucloud.store.database import Database
from gpucloud.store.rows import new_id, stamp, to_job


class JobChanges(TypedDict, total=False):
    """The columns of a job that change during its life."""

    state: JobState
    attempts: int
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    outputs_verified_at: datetime | None


class Jobs:
    """The table of jobs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, cluster: Cluster, spec: JobSpec) -> Job:
        """Enter a job before it is sent to its host."""
        job_id = new_id("j-", 6)
        with self._db.write() as db:
            db.execute(
                "INSERT INTO jobs"
                " (id, cluster_id, name, command, state, workdir, outputs, attempts, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
                (
                    job_id,
                    cluster.id,
                    spec.name or cluster.name,
                    spec.run,
                    JobState.QUEUED,
                    spec.workdir,
                    json.dumps(spec.outputs),
                    stamp(utcnow()),
                ),
            )
        return self.get(job_id)

    def update(self, job_id: str, **changes: Unpack[JobChanges]) -> Job:
        """Change columns of a job."""
        columns = ", ".join(f"{column} = ?" for column in changes)
        values = [stamp(value) if isinstance(value, datetime) else value for value in changes.values()]
        with self._db.write() as db:
            db.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (*values, job_id))
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job. Raises ``NothingMatched`` when there is none of that id."""
        found = self._find("WHERE jobs.id = ?", job_id)
        if not found:
            raise NothingMatched(
                f"there is no job {job_id!r}", why="the books do not have it", hint="gpucloud jobs"
            )
        return found[0]

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        return self._find("")

    def of(self, cluster: Cluster) -> list[Job]:
        """The jobs of one cluster, oldest first."""
        return self._find("WHERE cluster_id = ?", cluster.id)

    def _find(self, where: str, *values: object) -> list[Job]:
        query = (
            "SELECT jobs.*, clusters.name AS cluster_name FROM jobs JOIN clusters"
            f" ON clusters.id = jobs.cluster_id {where} ORDER BY jobs.created_at, jobs.rowid"
        )
        return [to_job(row) for row in self._db.read(query, *values)]
