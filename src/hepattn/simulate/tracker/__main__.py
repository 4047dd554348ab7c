"""Run the tracker simulation: ``python -m hepattn.simulate.tracker DIRECTORY``."""

from hepattn.simulate.tracker.command import main

if __name__ == "__main__":
    main()
