"""The version, in a file that neither torch nor the package's metadata is needed to read."""

__version__ = "0.1.0"
