"""Lambda Cloud: virtual machines with NVIDIA GPUs, on demand.

- The API: https://docs-api.lambda.ai/api/cloud (1.10.0, copy of 2026-08-22). Prices are whole US cents an
  hour for the instance, disk and traffic included.
- A type names the regions that have some left now; one that names none is sold out.
- There is no stopping and no spot, so what runs bills until it is terminated; a machine that powers itself
  off goes on billing, so the fuse is D.
- Every machine must be given exactly one SSH key of the account: one of ours, which is found by its contents
  or added once, and stays there (``gpucloud providers cleanup lambda``). cloud-init is honoured, so the
  machine's host key is ours from its first start.
- One request a second, one launch in 12 s. Use is billed by the minute..
- SSH is open to whom the account's own firewall rules admit.

Facts as of 2026-11-20.
"""

from gpucloud_lambda.adapter import Lambda

__all__ = ["Lambda"]
