"""RunPod: containers ("pods") with GPUs, on demand, in its own data centres and on machines of its partners.

To rent:

- The API: https://docs.runpod.io/api-reference-v2/ (2.0.0, copy of 2026-08-20), the second version of REST;
  the first has ended on 2026-11-15. Prices are dollars an hour for one GPU, so a pod costs as many times that
  as it has GPUs. Disk is billed beside it, and no API tells for how much.
- What is left is told for one cloud and one number of GPUs: NONE, LOW, MEDIUM or HIGH, in all and for each
  data centre. Prices are the same everywhere. Machines of partners ("community") stand in no data centre and
  in a country that is not told. Spot is not sold any more.
- A pod is found again by the environment variable ``GPUCLOUD``, which listings tell.
- SSH: our key goes into ``PUBLIC_KEY``, which the official images, and many others, put into
  ``authorized_keys``. The keys of the account are left alone: its API can only replace them all. Connections
  go to a mapped port; SSH is open to everybody. RunPod's proxy carries no files and is not used.
- Without ``--image`` it is RunPod's own image with PyTorch, on machines whose driver it can run on.
- A stop frees the GPUs and empties the container's disk. Files and jobs are on a volume of their own, at
  ``/root/.gpucloud``, which stays on that machine and bills double while stopped. ``--disk`` is the size of
  that; the container has 50 GB more. When the GPUs of the machine are taken, the pod cannot be started: no
  capacity, and it stays stopped.
  Such a pod has also come up without GPUs; it is stopped again, and one that runs so counts as failed.
- The fuse is B: RunPod plants a key in every pod that can end this pod and read no account (people report 204
  for it, 2026-09). Until somebody has logged in for the first time only a client can end it.
- A listing may have pages (``pagination``), which the copy of the API's document does not name.
- Sold out is told by prose alone. How the limit of spending and a type that is gone are told is not known;
  neither are the least time that is billed, the longest name, and how soon a listing shows a pod.

The public prices:

- The address: https://graphql-spec.runpod.io/, "gpuTypes". The specification asks for a key. Without one the
  query is answered, too (last observed on 2026-08-27; RunPod's own tools count on it), while REST wants a key
  for everything. GraphQL is to end in early 2027: this catalogue ends with it.
- ``securePrice`` and ``communityPrice`` are dollars an hour for one GPU.
- How many GPUs a pod can have is told for each cloud. 0 is told beside a price, too, for what that cloud has
  not: for types without partners, and for both clouds of parts of GPUs (MIG).
- ``stockStatus`` is High, Medium, Low or nothing, which RunPod's own tools show as out of stock. It is asked
  for 1, 2, 4 and 8 GPUs. It is told of the secure cloud and of both together (a question for the community
  cloud alone is answered with nothing): what is left of both and not of the secure one is the community's.
- Spot prices are still told, but have been those on demand since August 2026. One is taken over only where it
  is the lower.
- A question that is refused, for its length or for a field that is gone, is asked again without the stock.
- The type ``unknown`` is a placeholder.

Facts as of November 2026.
"""

from gpucloud_runpod.adapter import Runpod

__all__ = ["Runpod"]
