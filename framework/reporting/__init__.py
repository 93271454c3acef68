"""What a run shows while it works: metrics, progress bar, video, and the hooks of those who observe it."""
