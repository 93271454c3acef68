"""What a run leaves on disk, written safely and read back with care."""
