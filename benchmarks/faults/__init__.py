"""The fault matrix: every fault against every kind of request. `scripts/fault_matrix` starts it."""
