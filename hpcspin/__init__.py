"""Spin dynamics driven by electrons out of equilibrium: exact, learned, distributed."""

__version__ = "0.1.0"
