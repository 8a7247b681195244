"""Servers whose behaviour is known, to measure those that measure."""
