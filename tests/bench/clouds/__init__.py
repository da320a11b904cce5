"""The three clouds at the size that they have, each behind ports of a process of its own, and far away.

``aws``, ``gcp`` and ``azure`` each make all replies before the first request, by what it is known: ``key``. A
server only looks them up, and waits; so what is measured beside it is what gpucloud takes.
"""
