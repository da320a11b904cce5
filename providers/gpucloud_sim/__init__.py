"""A scripted market whose instances are local ones: for demos, for learning, and for testing what goes wrong.

Nothing here costs money; its prices are simulated and say so. The script is what follows the colon of the
provider: ``sim:stockout=2,boot=5s,interrupt@40s``; see ``gpucloud_sim.script`` for its words. The same script
and seed give the same events.

Each instance has a disk and an address, which are listed and cost something beside it, and of a stopped one
only these go on. GPUs are simulated too: an ``nvidia-smi`` of the instance shows what was sold.
"""

from gpucloud_sim.adapter import Sim

__all__ = ["Sim"]
