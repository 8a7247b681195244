"""The tables of the records, as migrations of Django's."""
