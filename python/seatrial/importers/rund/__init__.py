"""RunD's raw measurements (USENIX ATC 2022, artifact): starts, CPU time and memory of sandboxes."""
