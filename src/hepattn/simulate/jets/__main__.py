"""Run the jet simulation: ``python -m hepattn.simulate.jets``."""

from hepattn.simulate.jets.command import main

if __name__ == "__main__":
    main()
