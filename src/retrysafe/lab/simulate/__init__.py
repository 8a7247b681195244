"""The real flow, driver and store under one virtual clock and one seed, in a world that is hostile to them."""
