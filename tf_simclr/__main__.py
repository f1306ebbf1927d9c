"""`python -m tf_simclr`."""

from tf_simclr.cli import main

if __name__ == "__main__":
    main()
