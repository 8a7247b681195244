"""Doors for servers: each turns an outside protocol into the engine's request, and its answer back."""
