"""Azure: virtual machines with whole GPUs, on demand and spot, in every region; and their public prices.

Renting needs ``pip install 'gpucloud[azure]'`` and a login: ``az login``, the variables of a service
principal, or whatever else azure-identity finds. The subscription is that of the setting ``subscription``, of
AZURE_SUBSCRIPTION_ID, or the default one of ``az login``.

Settings: ``subscription``; ``resource_group`` (``gpucloud``); ``regions``, which are offered; ``arm_url`` of
another cloud of Azure; ``ca_file`` and ``instance_discovery = false`` for one with certificates and a sign-in
of its own; ``catalog_url`` and ``catalog_regions`` for the prices.

What renting makes:

- One resource group for all, and in each region a network with a firewall, both named ``gpucloud-REGION``;
  all are tagged ``gpucloud=shared``. SSH is open to who launches; rules are added, and never taken away.
- A machine has one public address: of IPv6 where everybody who is to reach SSH has IPv6 alone, else of IPv4,
  and then a rule for a network of IPv6 lets nobody in. A network that was made for IPv4 alone is given IPv6
  when the first machine needs it.
- For each machine an address, an interface and a disk, whose delete options let them go with it. Their names
  come from the token, so that a launch that is repeated finds what it has made.
- No managed identity, and no key in the account: a machine holds nothing that could do anything at Azure.

Quirks:

- That there is no hardware is said after the machine was made, and it stays. A launch looks at it for up to
  20 s, or until it has hardware, and takes a refused one away.
- A machine that is shut down from within stays allocated and is billed in full:
  https://learn.microsoft.com/azure/virtual-machines/states-billing. Only whoever has credentials can end one,
  so its fuse is D, and the power-off at the end of a lease saves nothing. Such a machine is ``unknown`` here,
  not ``stopped``. To stop is to deallocate; the disk and the address bill on.
- Spot machines are deleted when they are taken back, with 30 s of notice by a scheduled event:
  https://learn.microsoft.com/azure/virtual-machines/spot-vms.
- Quotas count vCPUs: by family and in all on demand, and all spot machines of a region together.
- Nodes share a proximity placement group. It goes with the last node as soon as Azure lets it; one that stays
  costs nothing and is cleaned up with the network.
- Confidential sizes are left out, because they need images of their own.
- A machine with a public address of IPv6 has one of IPv4 inside its network, and no sure way out by IPv4:
  https://learn.microsoft.com/azure/virtual-network/ip-services/default-outbound-access.
- The sizes of a region take Azure's own library 2.2 s of one core to read, and plain JSON 0.1 s (1,100 rows,
  1.5 MB, measured in November 2026), so whatever only reads does without the library.

The public prices:

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
