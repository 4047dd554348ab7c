"""The liquid-xenon calorimeter of MEG II: filling in dead channels, regression."""
