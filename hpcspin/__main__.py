"""``python -m hpcspin`` is ``hpcspin``."""

from hpcspin.cli import main

if __name__ == "__main__":
    main()
