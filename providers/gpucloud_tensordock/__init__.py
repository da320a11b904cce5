"""TensorDock: virtual machines on other people's hosts, put together from GPUs, processors, memory and disk.

- The API: https://dashboard.tensordock.com/api/docs (version 2.0), read in copies of 2026-05 to 2026-11 and
  in the code of others who call it; nothing here has met the real server. The only OpenAPI document is a
  third party's and contradicts that page (``gpus`` is no list but ``{"h100-sxm5-80gb": {"count": 8}}``).
- A location tells the most GPUs, processors, memory and disk that one machine can have there, and dollars an
  hour for each. An offer here is 8 vCPU and 32 GB for each GPU and 100 GB of disk, or as much disk as is
  asked for; the price is the sum of all parts, and where one has no price there is no offer.
- Machines are known by their names alone, so our tags are in there.
- Only locations with an address of their own for each machine: a host without one wants an outer port chosen.
- A refusal may come with a status of success. What a stopped machine costs is not told.
- TensorDock belongs to Voltage Park, which became part of Lightning AI in January 2026.

Facts as of 2026-11-21.
"""

from gpucloud_tensordock.adapter import Tensordock

__all__ = ["Tensordock"]
