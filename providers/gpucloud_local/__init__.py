"""Instances on this very machine, at $0: for tests, demos and work that needs no rented GPU.

An instance is a private folder with an SSH server of its own on a loopback port, its own host key, its own
authorized key and its own HOME. It outlives the command that launched it and ends, with every process that
was started in it, on terminate. The server is asyncssh; ``GPUCLOUD_LOCAL_SSHD=openssh`` takes the machine's
sshd.

Quirks: instances are told apart by HOME and nothing else; they share the machine's memory, disk and GPUs. A
process is known to belong to an instance by a variable in its environment, which is read from /proc; where
there is no /proc only the processes still below the SSH server are ended.
"""

from gpucloud_local.adapter import Local

__all__ = ["Local"]
