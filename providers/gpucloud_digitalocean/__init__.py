"""DigitalOcean GPU Droplets: virtual machines with NVIDIA or AMD GPUs, on demand.

- The API: https://docs.digitalocean.com/reference/api/ (its document of 2026-08-07). Prices are US dollars an
  hour for the whole size, disks and some traffic included. Sizes without a GPU are left out.
- A size names the regions where it can be created now; one that names none, or is not ``available``, cannot
  be had, which is also so where the account's tier does not allow it. How many are left is not told.
- The number in the name of a size is the memory of all its GPUs. Those sold by contract are not listed.
- There is no spot, and a Droplet that is powered off bills in full: nothing is stopped, and the fuse is D.
- Every Droplet is given one SSH key of the account: one without any has a password for root instead. Our key
  is found by its contents or added once, and stays there. cloud-init is honoured, so the machine's host key
  is ours from its first start.
- A firewall that launches share opens SSH to the networks of its name, and everything among the machines
  under it. It follows a tag, so that it is there before a Droplet is; further networks are another firewall
  and another tag. Firewalls, tags and keys cost nothing, and stay until they are cleaned up
  (``gpucloud providers cleanup digitalocean``).
- Tags keep the case in which the account used them first.
- Listings show GPUs only when asked for them, and then not by tag.
- 5,000 requests an hour and 250 a minute; a refusal says when to come back.
- Not known: the steps in which use of GPUs is billed (without GPUs it is seconds), whether the boot
  disk can be larger, and how an account without money is refused.

Facts as of 2026-11-21.
"""

from gpucloud_digitalocean.adapter import Digitalocean

__all__ = ["Digitalocean"]
