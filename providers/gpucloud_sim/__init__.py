"""A scripted market whose instances are local ones: for demos, for learning, and for testing what goes wrong.

Nothing here costs money; its prices are simulated and say so. The script is what follows the colon of the
provider: ``sim:stockout=2,boot=5s,interrupt@40s``; see ``gpucloud_sim.script`` for its words. The same script
and seed give the same events.
"""

from gpucloud_sim.adapter import Sim

__all__ = ["Sim"]
