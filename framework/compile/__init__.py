"""Updates and rollouts as programs in C++, held against those in Python."""
