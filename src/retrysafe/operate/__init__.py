"""What operators do with a store, beside running applications: one module each, called by the command line."""
