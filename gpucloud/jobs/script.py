"""What the on-host program gets to run: shell text, and its environment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from gpucloud.model import Cluster, JobSpec

MASTER_PORT = 29500
"""Where rank 0 listens for the others; torchrun's own default."""


def command_text(words: Sequence[str]) -> str:
    """The words after ``--`` as shell text: one word is a shell line already, several are a command."""
    return words[0] if len(words) == 1 else shlex.join(words)


def scripts(spec: JobSpec, cluster: Cluster, rank: int, job_id: str) -> dict[str, str]:
    """The files of a job on one node: ``run``, ``env`` and maybe ``setup``."""
    files = {"run": spec.run + "\n", "env": environment(spec, cluster, rank, job_id)}
    if spec.setup.strip():
        files["setup"] = spec.setup + "\n"
    return files


def environment(spec: JobSpec, cluster: Cluster, rank: int, job_id: str) -> str:
    """Export lines: the job's own variables and secrets, and where it runs."""
    addresses = _addresses(cluster)
    variables = {
        "GPUCLOUD_JOB_ID": job_id,
        "GPUCLOUD_NODE_RANK": str(rank),
        "GPUCLOUD_NUM_NODES": str(len(addresses)),
        "GPUCLOUD_NODE_IPS": "\n".join(addresses),
        "GPUCLOUD_GPUS_PER_NODE": str(cluster.rentals[rank].gpu_count),
        "MASTER_ADDR": addresses[0],
        "MASTER_PORT": str(MASTER_PORT),
        **spec.envs,
        **spec.secrets,
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _addresses(cluster: Cluster) -> list[str]:
    """Where the nodes reach each other: within their network if they are in one, else as we reach them."""
    known = [rental.ssh for rental in cluster.rentals]
    inside = [ssh.inside for ssh in known if ssh and ssh.inside]
    networks = {(rental.provider, rental.region) for rental in cluster.rentals}
    if len(networks) == 1 and len(inside) == len(known):
        return inside
    return [ssh.host if ssh else "" for ssh in known]
