"""Training: two stages as configurations, one step's arithmetic, checkpoints, and Ray Train around them."""
