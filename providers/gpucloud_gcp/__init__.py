"""Google Cloud: what spot virtual machines with built-in GPUs have cost.

What it tells: the spot price of every machine type with accelerators of its own (series A2, A3, A4, G2, G4
and those that follow), region by region, each as of the moment from which on it held.

- The prices: https://docs.cloud.google.com/compute/docs/reference/rest/v1/advice/capacityHistory, in words at
  https://docs.cloud.google.com/compute/docs/instances/view-spot-preemption-price. It is asked by POST and
  changes nothing. ``listPrice`` is the price of the Spot VM, that is of the whole machine with its
  accelerators, for an hour, in units and nanos (10^-9) of a currency. It is that of a region; the past year
  is told. A time for which Google has no data is not told.
- ``preemptionRate`` is a share from 0 to 1: spot machines preempted in a day by those that stopped running
  on that day. That is no chance for an hour, and is passed on as it is.
- N1 machines to which GPUs are attached, custom machine types and TPUs are not told there.
- The machines: ``machineTypes.aggregatedList``. Only names that begin with a or g and a digit are asked for,
  the series of https://docs.cloud.google.com/compute/docs/accelerator-optimized-machines; all others have
  no GPUs of their own. ``memoryMb`` is MiB: 87040 for a machine of 85 GB.
- Nothing is told without credentials. They come from the file that GOOGLE_APPLICATION_CREDENTIALS names, or
  from that of ``gcloud auth application-default login``; the metadata server is never asked. The account
  needs the permissions ``compute.machineTypes.list``, ``compute.regions.get`` and
  ``compute.advice.capacityHistory``: the role "Compute Viewer" has them.
- Too many requests are told as 429, and as 403 with the reason ``rateLimitExceeded``.

Facts as of November 2026 (compute.v1, revision 20261106).
"""

from gpucloud_gcp.adapter import Gcp

__all__ = ["Gcp"]
