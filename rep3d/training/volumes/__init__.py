"""Images and label maps on a task's grid, ready for patches to be cut from them; kept on disk between trainings."""
