"""``python -m rep3d``: the command line."""

from rep3d.cli.main import main

if __name__ == "__main__":
    main()
