"""What the built-in policies are made of: layers, networks, their snapshots in numpy, and softmax."""
