"""`retrysafe verify`: a black-box verifier of the idempotency keys of any running API.

It knows nothing of the engine in this project: of ours it imports only the errors and the faults.

Reading order: `case` says what a case is; `cases` are all of them, one function each; `probe` is what a case
works with. `target` is what the operator tells of the API, `effects` how its effects are counted, `profile`
what a provider documents otherwise. `runner` runs cases and tells what happens as events; `report` shows them.
"""

try:
    import h11
    import httpx2
    import rich
    import yaml
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f'verify needs {missing.name}: pip install "retrysafe[verify]"', name=missing.name
    ) from missing

del h11, httpx2, rich, yaml
