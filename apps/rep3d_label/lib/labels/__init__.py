"""Labels: names and voxel values, what is accepted, and facts about them."""
