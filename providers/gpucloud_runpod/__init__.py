"""Prices of RunPod: one for each type of GPU in its own data centres, one in those of its partners.

What it tells: every type of GPU with its memory, the price of one in the secure and in the community cloud,
how many a pod can have at most, and in words how much is left. Prices are the same everywhere, so that no
region is told.

- The address: https://graphql-spec.runpod.io/, "gpuTypes". The specification asks for a key. Without one the
  query is answered, too (last observed on 2026-08-27; RunPod's own tools count on it). The newer interface,
  https://docs.runpod.io/api-reference-v2/catalog/list-gpu-types, wants a key for everything, and GraphQL is
  to end in early 2027: this catalogue ends with it.
- ``securePrice`` and ``communityPrice`` are dollars an hour for one GPU; a pod costs as many times that as it
  has GPUs. Disk is not included.
- How many GPUs a pod can have is told for each cloud. 0 is told beside a price, too, for what that cloud has
  not: for types without partners, and for both clouds of parts of GPUs (MIG).
- ``stockStatus`` is High, Medium, Low or nothing, which RunPod's own tools show as out of stock. It is asked
  for 1, 2, 4 and 8 GPUs. It is told of the secure cloud and of both together (a question for the community
  cloud alone is answered with nothing): what is left of both and not of the secure one is the community's.
- Spot prices are still told, but have been those on demand since August 2026, and the newer interface sells
  no spot. One is taken over only where it is the lower.
- A question that is refused, for its length or for a field that is gone, is asked again without the stock.
- The type ``unknown`` is a placeholder.

Facts as of November 2026.
"""

from gpucloud_runpod.adapter import Runpod

__all__ = ["Runpod"]
