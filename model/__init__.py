"""The life of a record as a TLA+ specification, and the program that checks it."""
