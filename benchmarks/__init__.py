"""What attlas costs, as ratios to what a user would otherwise run, measured in turn in one process."""
