"""A plugin for each role, which keeps the laws: `framework new` copies it, and replaces `my_part` and `MyPart`."""
