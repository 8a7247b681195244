"""Small servers with one named defect each, and one without: the judges of the verifier.

Reading order: `http` is as much of HTTP as they need, `shop` what they sell, `correct` protects it as it should be
done; each class in `keys`, `answers`, `reuse`, `timing`, `outcomes`, `privacy` and `papers` is that server with
one thing done wrong. `catalogue` lists them, `serving` runs them, `matrix` shows which case catches which defect.

    python -m retrysafe.lab.mutants KeysAreNotScoped --port 8080
"""
