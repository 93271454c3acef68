"""The building blocks of the built-in policies: layers, networks, their snapshots in numpy, and softmax."""
