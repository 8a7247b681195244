"""Where records are kept. `contract` is the promise; each other module is a store that keeps it."""
