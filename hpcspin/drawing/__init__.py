"""Figures, tables and the numbers that they show."""
