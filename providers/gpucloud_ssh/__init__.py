"""Machines the user already has, reached by SSH: ``[providers.ssh.hosts.NAME]`` in the user's config file.

A machine is rented exclusively unless its ``slots`` say otherwise. That it is taken is noted here, so that
two launches never get one machine, and by the core on the machine itself, so that two installations do not
either. Terminate gives the machine back; the core has removed our folder, and nothing else, before that.
"""

from gpucloud_ssh.adapter import Ssh

__all__ = ["Ssh"]
