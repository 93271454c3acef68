"""Environment and policy → Rollout: shards of parallel environments, stepped."""
