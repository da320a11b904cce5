"""Prime Intellect, a broker of some twenty clouds and data centres: virtual machines and containers.

- The API: https://docs.primeintellect.ai/api-reference (copy of 2026-08-22). It wants a key for everything.
- The instance type here is ``<provider>/<count>x<gpuType>``. Lines that have it and the data centre in common
  are told apart by the reference of the offer: the cloud's own id, the socket, and the kind of cloud.
- ``onDemand`` is the price of the whole machine in the secure cloud, ``communityPrice`` that in the community
  cloud, in dollars or euros. Disk, CPUs and memory may cost on top, by the unit; what the default of each
  comes to is in the price here, summed up as in the example of
  https://docs.primeintellect.ai/api-reference/check-gpu-availability. A line that leaves open what it
  comes with, or whether that is in its price, is no offer. A larger disk is priced, and rented, where its
  units cost on top.
- ``prepaidTime`` are hours that are owed as soon as a machine is ordered. A price may be variable.
- ``maxPrice`` is the highest price at which a create goes through. In which currency it is meant is nowhere
  told: in dollars and in the offer's currency it is at most the cap, by the lower number of the two.
- A pod has a name and nothing else to carry our tags, so they are in there. The vendor's own tool wants only
  letters, digits and dashes in it; its guide has blanks too. How long it may be is not told.
- There is no user data, so the machine's host key is its own; and no stopping and no end by itself: the fuse
  is D. ``priceHr`` of a pod is taken for dollars, in which the account's wallet is kept.
- The guide takes the address of a pod from ``pods/status``, which is asked when the pod itself tells none.
- Our SSH key is found in the account by its contents, or added once and stays there (``gpucloud providers
  cleanup primeintellect``).

Not known: how finely use is billed, from when on, limits of requests, the words of most refusals, and for how
long a new pod may be missing from the list. Facts as of 2026-11-21.
"""

from gpucloud_primeintellect.adapter import Primeintellect

__all__ = ["Primeintellect"]
