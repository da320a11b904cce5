"""Prices of Shadeform, a broker of some twenty clouds: each in its regions, on demand and spot.

What it tells: every instance type of every cloud behind it, its price for the whole instance, and for each
region whether it can be had now.

- The address: https://docs.shadeform.ai/api-reference/instances/instances-types. It answers without a key,
  which the page calls required, all at once and in no order.
- The instance type here is ``<cloud>/<shade_instance_type>``, the two names by which one is launched;
  ``excesssupply`` is Shadeform's own pool. Lines that have both names and the region in common but another
  ``cloud_instance_type`` are told apart by the reference of the offer: ``vm/gpu_8x_h200``.
- On demand ``hourly_price`` is whole cents, at the type. Spot is an entry of its own beside that of the same
  region, whose ``hourly_price`` is a decimal string in dollars: https://docs.shadeform.ai/guides/spotinstances.
- The details stand in ``configuration``; a copy of most stands beside it, and older replies have only that.
- ``interconnect`` is the socket of the GPUs and at times wrong: a name with "sxm" in it counts more.
- A country is told where the name of the region begins with its code: "US, Wichita, KS".
- ``deployment_type`` is ``vm``, ``container`` or ``baremetal``.

Facts as of October 2026. The terms of use want to be asked before its data is collected systematically.
"""

from gpucloud_shadeform.adapter import Shadeform

__all__ = ["Shadeform"]
