"""Google Cloud: virtual machines with GPUs and TPUs, on demand and spot, and what spot machines have cost.

What it rents: every machine type with accelerators of its own (series A2, A3, A4, G2, G4 and those that
follow), in each zone, and ``n1-standard-4``, ``-8`` and ``-16`` with one T4, P4, V100 or P100 attached, which
are called ``n1-standard-8+nvidia-tesla-t4``; and the machines with TPUs v5p, v6e and TPU7x that are made as
instances, each a slice of its own, of which a chip counts as one GPU. An instance is found again by its
labels; what they cannot hold is in its metadata, where tags are as they were written.

- The login is a file: that which GOOGLE_APPLICATION_CREDENTIALS names, or that of ``gcloud auth
  application-default login``; the metadata server is never asked. The project is that of the setting
  ``project``, of GOOGLE_CLOUD_PROJECT, or of the file.
- Prices are the sums of parts in the public price list, for which the Cloud Billing API must be on:
  https://docs.cloud.google.com/billing/docs/reference/rest/v1/services.skus/list. Those of spot machines that
  the list lacks are told as a whole, region by region, and not for attached GPUs:
  https://docs.cloud.google.com/compute/docs/reference/rest/v1/advice/capacityHistory, in words at
  https://docs.cloud.google.com/compute/docs/instances/view-spot-preemption-price. It is asked by POST and
  changes nothing. The past year is told. A time for which Google has no data is not told.
- ``preemptionRate`` is a share from 0 to 1: spot machines preempted in a day by those that stopped running
  on that day. That is no chance for an hour, and is passed on as it is. So is ``obtainability``, which
  Google calls high from 0.7 on: https://docs.cloud.google.com/compute/docs/instances/view-vm-availability.
- Most refusals come after the request was accepted, inside its operation, within seconds; a launch waits for
  them for ten. One that comes later is told with the instance that is not there.
- A lease becomes ``maxRunDuration``, after which Google deletes the machine, from 30 seconds to 120 days. It
  can be changed only while the machine is stopped:
  https://docs.cloud.google.com/compute/docs/reference/rest/v1/instances/setScheduling.
- Launches share the network ``gpucloud`` and the rules of its firewall; see ``network``. Several machines of
  A3 Ultra, A4 or A4X that are rented together also share two networks for RDMA between their GPUs, those of
  A3 High four for GPUDirect-TCPX and those of A3 Mega eight for GPUDirect-TCPXO, where the project may have
  so many; see ``fabric``. The last two take NCCL's plugin and a daemon, too, for image or setup to bring.
- An instance that says TERMINATED is stopped; what was deleted is no longer told. To stop a machine loses
  what is on the local disks that it brought along.
- A machine of the queue ("flex-start") is there at once with the status PENDING, and costs nothing until
  there is capacity, and quota, for it. Its operation goes on for as long; when the time to wait is over (90
  seconds to two hours), the operation fails and the machine is gone. It runs for seven days at most:
  https://docs.cloud.google.com/compute/docs/instances/about-flex-start-vms, and for its status
  https://docs.cloud.google.com/compute/docs/instances/instance-lifecycle.
- Reservations are those of calendar mode, for 1 to 90 days and 1 to 80 machines, which cannot be cancelled.
  They are billed from their start to their end, used or not, and what runs in one is deleted with it:
  https://docs.cloud.google.com/compute/docs/instances/create-future-reservations-calendar-mode. What can be
  reserved tells https://docs.cloud.google.com/compute/docs/reference/rest/v1/advice/calendarMode. A
  reservation has the name of the request for it, in whose description are our tags.
- TPU v5e and older, slices of several machines and custom machine types are not rented here, and TPUs are not
  reserved.
- The machines: ``machineTypes.aggregatedList``. For the past only names that begin with a or g and a digit
  are asked for, the series of https://docs.cloud.google.com/compute/docs/accelerator-optimized-machines.
  ``memoryMb`` is MiB: 87040 for a machine of 85 GB.
- To look takes the role "Compute Viewer", to rent "Compute Instance Admin (v1)" and, for the network,
  "Compute Security Admin" and "Compute Network Admin". A permission that is missing for one list is named in
  the log.
- Too many requests are told as 429, and as 403 with the reason ``rateLimitExceeded``.

Facts as of November 2026 (compute.v1, revision 20261106; cloudbilling.v1, revision 20260901).
"""

from gpucloud_gcp.adapter import Gcp

__all__ = ["Gcp"]
