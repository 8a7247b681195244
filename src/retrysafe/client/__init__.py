"""The client's side: one key for each intent, kept over every attempt (contract part J)."""
