"""The helper that a sync sends to a host which has Python 3.7 or later; nothing of it is left there.

Its modules import only the standard library and each other; ``session`` on this side sends them.
"""
