"""Real processes over real stores, killed and stopped at every failpoint, and their stores with them."""
