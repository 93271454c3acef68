"""Worlds small enough to be tables of transitions: sampled without stepping them."""
