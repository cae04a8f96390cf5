"""Grids of runs: methods × tasks × poison × seeds, each run once, and the tables and plots of what they measured."""
