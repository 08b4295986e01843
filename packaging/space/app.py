"""A demo space: the page of ``captum-advise app``, which the host shows in a frame."""

import sys

from captum_advise.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", "--host", "0.0.0.0"]))
