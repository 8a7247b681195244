"""`make prove`: the proofs that take long, one after the other, and a report."""
