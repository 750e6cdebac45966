"""Structured pruning of any family with nodes(): score the nodes, choose which to keep, remove the others."""
