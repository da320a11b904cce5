"""Prices of Vast.ai: a market of other people's machines, each offered in parts and as a whole.

What it tells: for every machine, or part of one, that can be rented now its GPUs, processors, network and
place, how far it is to be trusted, a price on demand, and the least bid for an interruptible one.

- The search: https://docs.vast.ai/api-reference/search/search-offers. It is described as one for customers
  and answers everybody, but with 64 offers at most, whatever ``limit`` says (observed by several people, last
  on 2026-09-29). So the market is read in parts by number of GPUs, and each part in steps of price: the
  cheapest, then the cheapest from the dearest of these on. Of more than 64 offers at one price some stay
  hidden.
- It is asked by GET with the question in ``q``, at most once a second. There is a quota of rows for a day, of
  a size that is not published: HTTP 429, the code ``search_quota_exceeded`` and a ``Retry-After`` of hours
  (https://docs.vast.ai/api-reference/rate-limits-and-errors). Parts that were read until then are kept.
- ``dph_base`` and ``min_bid`` are dollars an hour for all GPUs of an offer. ``dph_total`` is with a few GB of
  disk, which is never included and has its own price: ``storage_cost``, for a GB and 720 hours.
- ``gpu_ram`` is that of one GPU, ``cpu_ram`` that of the machine, both in MiB, called MB. Of the machine's
  memory an offer has the share that it has of the cores.
- ``inet_up`` and ``inet_down`` are Mbit/s. Bytes received are billed like bytes sent, at ``inet_down_cost``.
- ``geolocation`` ends in a country: "California, US". The codes XA to XZ are not of ISO 3166.
- ``hosting_type`` is above 0 for the data centres that Vast.ai vouches for, its "Secure Cloud".
- ``verification`` is "verified", "unverified" or "deverified"; offers of all three are told.

Facts as of November 2026.
"""

from gpucloud_vast.adapter import Vast

__all__ = ["Vast"]
