"""Capacity planning: what a fleet needs of a machine, from service times measured on it."""
