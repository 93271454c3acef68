"""Rollout → better parameters: advantages, minibatches, gradients, optimizer steps."""
