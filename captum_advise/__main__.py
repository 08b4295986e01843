"""``python -m captum_advise``: the command line."""

from captum_advise.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
