"""gpucloud: a command-line broker for rented GPUs."""

__version__ = "0.1.0"
