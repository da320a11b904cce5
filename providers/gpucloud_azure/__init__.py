"""Prices of Azure: virtual machines with whole GPUs, region by region, on demand and spot.

What it tells: what every size costs as you go, with Linux, and what spot capacity of it costs at the moment.

- The address: https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices. It
  needs no account, and has pages of up to 1,000 rows and no editions. It answers 429 to who asks in haste.
- A region is a part. The filter fetches only sizes whose name begins with N: those with an accelerator.
- Nothing says which GPUs a size has, nor how many. That is in ``api.SIZES``, from the pages below
  https://learn.microsoft.com/azure/virtual-machines/sizes/gpu-accelerated/. What is not in it is left out:
  sizes with a part of a GPU, FPGAs and video cards, what has retired, and what no page describes.
- The number of vCPUs is in the name: https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions
- One size has many meters. The product says "Windows" or "Win" of those for Windows; the meter says "Spot",
  and "Low Priority", which is for Azure Batch. Some have prices to come or past; the one in force counts.
- Spot may cost the same as on demand: H200 did in October 2026.

Facts as of November 2026.
"""

from gpucloud_azure.adapter import Azure

__all__ = ["Azure"]
