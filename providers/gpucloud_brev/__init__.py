"""Prices of NVIDIA Brev, a broker of clouds such as AWS, GCP, Crusoe, Nebius and those behind Shadeform.

What it tells: every instance type that can be had now, with the cloud behind it, its GPUs, one base price an
hour for the whole instance, and the locations where it can be had. It sells on demand.

- The address: ``GET https://api.brev.dev/v1/instance/types``, which asks for no credentials. No page
  documents it; its fields are those of Brev's own client, https://github.com/brevdev/brev-cli, whose
  "brev search" shows them: https://docs.nvidia.com/brev/cli/search-discovery.
- The instance type here is ``<provider>/<type>``: what "brev create" calls ``--provider`` and ``--type``.
- The base price is that of every location for which ``location_prices`` has no other.
- Amounts are decimal strings with a currency. Sizes are text such as ``22GiB360MiB``; the memory of a GPU is
  that of one of several. AWS's A10G has 22 GiB there, which is the 24 GB of the table.
- A disk of a fixed size is in the price. One whose size can be chosen has a price per GB and hour.
- An entry with several GPUs in ``supported_gpus`` is as many offers, told apart by their reference.

Facts as of October 2026.
"""

from gpucloud_brev.adapter import Brev

__all__ = ["Brev"]
