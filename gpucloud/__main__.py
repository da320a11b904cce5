"""``python -m gpucloud``."""

from gpucloud.cli import main

if __name__ == "__main__":
    main()
