"""Measures the budgets of the gateway against baselines. `scripts/bench` runs it."""
