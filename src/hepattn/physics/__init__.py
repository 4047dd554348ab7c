"""Pure functions with physics in them: coordinates, trajectories, kinematics."""
