"""Builds what a config describes from the other packages: systems and fields, and the layout of results."""
