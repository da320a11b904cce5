"""Dated facts that ship with the program: the GPU table and how every vendor spells its rows."""
