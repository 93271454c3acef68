"""From names, files and flags to a run: plugins, configuration, wiring, building."""
