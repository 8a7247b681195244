"""`python -m retrysafe` is `retrysafe`."""

from retrysafe.cli import main

if __name__ == "__main__":
    main(prog_name="retrysafe")
