"""Config, planner, controller, launch and the command line."""
