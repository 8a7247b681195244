"""Ways to be wrong, to be planted into the simulated product."""
