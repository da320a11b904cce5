"""Crusoe: virtual machines, on demand.

- The API: https://api.cloud.crusoe.ai/v1/openapi.json (v1, copy of 2026-07-20). Its v1alpha5, which older
  clients use, is left out: v1 is what Crusoe's own Terraform provider asks now.
- Every request is signed with an access key and a secret (``signing``). The project is that of the setting
  ``project``, an id or a name, or the only one there is.
- The API tells no prices. Those of ``prices.csv``, of one GPU an hour, are of the day and the source that are
  written there, and so are the offers: their confidence is ``published``, their age that of the price. What
  has no price there (B200, GB200, MI355X, processors alone) is not offered. Availability is live: what is
  free in each place, and what is left of the project's quota.
- Prices by contract, and reservations, into which Crusoe itself puts a machine that fits, cost less.
- A machine has a name and no tags, so ours are in the name; a name is of one machine in the project.
- Creating is an operation, in which a lack of machines is told; a launch looks at it for some seconds.
- The system disk ends with the machine. The disks that a type has are there unformatted, and what is on them
  is lost when the machine stops. No others are made.
- Only a running machine is billed (https://support.crusoecloud.com/hc/en-us/articles/48176498638235); what
  the system disk and the address of a stopped one cost is not known. After a stop it has another address.
- By that page one that powers itself off bills no more compute, so the fuse is C; nobody has tried it.
- The login is ``ubuntu``; user data is not taken, only a script of each start, so the host key is not ours.
- SSH is open to whom the rules of the project's network admit.
- Not known: steps of billing, price of traffic, how long a name may be (63 is what every host's may), and how
  spot is asked for.

Facts as of 2026-11-21.
"""

from gpucloud_crusoe.adapter import Crusoe

__all__ = ["Crusoe"]
