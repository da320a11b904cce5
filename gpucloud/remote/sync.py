"""The door to what brings files to a host and back."""

from gpucloud.remote.pull import Pulled, pull
from gpucloud.remote.push import Pushed, push

__all__ = ["Pulled", "Pushed", "pull", "push"]
