"""Between a run and its parts: checks of what they return, limits, and which part an error comes from."""
