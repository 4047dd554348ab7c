"""Run the calorimeter simulation: ``python -m hepattn.simulate.xec``."""

from hepattn.simulate.xec.command import main

if __name__ == "__main__":
    main()
