"""Verda (DataCrunch until 2025): virtual machines with NVIDIA GPUs in Finland, on demand and spot.

- The API: https://api.verda.com/v1/docs. That document was not at hand: the facts are those of the vendor's
  own clients (PyPI verda 1.25.0; verda-cloud/verdacloud-sdk-go and verda-cli, 2026-08 to 2026-11), and the
  document of the tests was made by hand from these.
- The price list asks for no credentials: every instance type with its GPUs, processors, memory and two
  prices for the whole instance, as strings. Where a type can be had is told to accounts alone.
  ``gpu_memory`` is that of all GPUs together; a type whose name ends in ``CC`` is for confidential
  computing, and costs more.
- An account's id and secret buy a token for an hour, which is kept in memory alone.
- A create is answered by a bare id, and may time out although the machine is made; 503 means sold out.
- The disk is a volume that is sold apart; its name is our tags. It is deleted with the instance, past the
  trash; volumes that somebody has attached are only detached, and go on billing.
- What is being provisioned cannot be ended, only a little later. A spot instance may go without warning.
- One that is shut down bills in full, so there is no stopping, and the fuse is D. Use is billed in steps of
  ten minutes, from a balance that is paid beforehand. An instance's price is told without its currency, so
  only that of the offer counts.
- Machines know an SSH key of the account: ours is found by its contents or added once, and stays there
  (``gpucloud providers cleanup verda``). There is no startup script of ours: whether one is read as
  cloud-init would, in time for a host key, is not known.
- Not known either: limits on the rate of requests, how a quota is refused, the longest name of a volume, and
  how long a new instance may be missing from the list, for which a minute is taken.

Facts as of 2026-11-21.
"""

from gpucloud_verda.adapter import Verda

__all__ = ["Verda"]
