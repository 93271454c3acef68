"""A plugin of each role that keeps the laws: what `framework new` copies. `my_part` and `MyPart` become its name."""
