"""Proofs that anybody can run: evidence of what happened, one auditor that judges it, and a simulator that makes it."""
