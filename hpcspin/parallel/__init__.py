"""Launchers, communicators, devices, domains and progress: the only rooms that know about ranks."""
