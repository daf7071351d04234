"""What the minutes of a training are spent on, and which voxel size they afford."""
