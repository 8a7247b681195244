"""Ways to keep retries from doing things twice, side by side: small honest servers under the same load and faults.

Reading order: `shop` is what they all sell, `charges` the tables that their effects are counted in, `guards` each way
that people take, `protected` the shop behind retrysafe, `catalogue` lists them, `serve` runs one in a process. `places`
are the databases, `processes` the servers that are killed and started again, `load` the clients, `measure` one
strategy from its start to its figures, `report` and `page` what is shown of them, `command` the way in.
"""
