"""Vast.ai: containers on other people's machines, each offered in parts and as a whole, on demand or by bid.

The market:

- The search: https://docs.vast.ai/api-reference/search/search-offers. It is described as one for customers
  and answers everybody, but with 64 offers at most, whatever ``limit`` says (observed by several people, last
  on 2026-09-29). So each list is read in steps of price: the cheapest, then the cheapest from the dearest of
  these on. Of more than 64 offers at one price some stay hidden. The public catalogue is read by GET with the
  question in ``q``, in parts by number of GPUs; live offers by POST with the key, only what is wanted.
- There is a quota of rows for a day, of a size that is not published: HTTP 429, ``search_quota_exceeded`` and
  a ``Retry-After`` of hours, until 00:00 UTC (https://docs.vast.ai/api-reference/rate-limits-and-errors).
  Parts of the catalogue that were read until then are kept.
- ``dph_base`` and ``min_bid`` are dollars an hour for all GPUs of an offer. ``dph_total`` is with a few GB of
  disk, which is never included and has its own price: ``storage_cost``, for a GB and 720 hours. Whether that
  is a GB or a GiB is not said; it is taken for a GiB.
- ``gpu_ram`` is that of one GPU, ``cpu_ram`` that of the machine, both in MiB, called MB. Of the machine's
  memory an offer has the share that it has of the cores.
- ``inet_up`` and ``inet_down`` are Mbit/s. Bytes received are billed like bytes sent, at ``inet_down_cost``.
- ``geolocation`` ends in a country: "California, US". The codes XA to XZ are not of ISO 3166.
- ``hosting_type`` is above 0 for the data centres that Vast.ai vouches for, its "Secure Cloud".
- ``verification`` is "verified", "unverified" or "deverified"; offers of all three are told.

Renting:

- https://docs.vast.ai/api-reference/creating-instances-with-api (copy of 2026-08-07). What is accepted is one
  machine, so an offer is gone once somebody has it; its price may have changed since, and there is no way to
  refuse that. A bid is dollars an hour for the machine, and is what is paid: the least one is made, which
  anybody can beat; ``vastai change bid`` raises it.
- An instance that was outbid looks like one that was stopped (``exited``, meant to be ``stopped``), so every
  stopped one by bid is told as taken back. It bills its disk and comes back when its bid wins again. Not said
  anywhere: any notice of it.
- ``frozen`` bills in full. Stopped ones bill their disk, and their GPU may be gone when they are started.
- Tags are one text, the label. Keys of the account come into all its instances, so ours comes by ``onstart``
  instead. The address is a port of the machine, or a relay where the machine has none open. The host key is
  the container's own and is not known before.
- Each container has a key that is good for itself alone (``CONTAINER_API_KEY``); with that it ends itself.
  By the same documents it can be made again from two things that are no secrets, one of them the public keys
  that are let in.
- Requests to one address may come 1 to 5 s apart, by the ``threshold`` in the examples of refusals. How long
  a new instance is missing from the listing is not said; half a minute is allowed for.

Facts as of November 2026.
"""

from gpucloud_vast.adapter import Vast

__all__ = ["Vast"]
