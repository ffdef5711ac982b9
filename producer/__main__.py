"""`python -m producer` is `latentmill`, whatever the PATH."""

from producer.cli import main

if __name__ == "__main__":
    main()
