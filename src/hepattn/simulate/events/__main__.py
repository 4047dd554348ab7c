"""Run the event simulation: ``python -m hepattn.simulate.events``."""

from hepattn.simulate.events.command import main

if __name__ == "__main__":
    main()
