"""Prices of Oracle Cloud Infrastructure: GPU shapes, on demand and preemptible.

What it tells: what an hour of every shape costs. The prices are those of all commercial regions.

- The shapes are those of Oracle's cost estimator, https://www.oracle.com/cloud/costestimator.html, and the
  prices those of its price list, which is documented and names the unit beside each price:
  https://docs.oracle.com/en-us/iaas/Content/GSG/Tasks/signingup_topic-Estimating_Costs.htm. The estimator has
  the prices as well, but their units only as numbers of rows in one more document.
- A shape names the part that it is billed by. Parts of GPU shapes are billed by the GPU and hour; should the
  list say by the OCPU and hour, that counts. What is billed by anything else, or more, is left out.
- A price is that of all commercial regions, https://www.oracle.com/cloud/economics/; so no region is told,
  nor is known which of them have a shape.
- Preemptible instances cost half, everywhere. Only virtual machines can be preemptible, of GPU shapes the
  older ones: https://docs.oracle.com/en-us/iaas/Content/Compute/Concepts/preemptible.htm (February 2025).
- Names are decorated for display, "BM.GPU.GB200.4 (NVL72)"; the decoration is taken off.
- The number at the end of a name is that of its GPUs. The memory of GPUs is at times that of all and at times
  that of one. A shape that contradicts its name, or the memory its GPU has, is left out.
- Which GPU a shape has is in its name. Where it is not, or not wholly, it is in ``api.GPUS``, from
  https://docs.oracle.com/en-us/iaas/Content/Compute/References/computeshapes.htm. Nothing there says of
  A100, V100 and H200 whether they are SXM or PCIe, so that stays open.
- An OCPU is two vCPUs but for shapes with NVIDIA's own processors, where the sources disagree.

Facts as of November 2026.
"""

from gpucloud_oci.adapter import Oci

__all__ = ["Oci"]
