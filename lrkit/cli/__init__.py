"""The command `lrkit`. Each part is loaded when it is needed."""
