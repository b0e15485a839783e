"""Launchers, communicators, devices, domains and progress: how ranks share a run."""
