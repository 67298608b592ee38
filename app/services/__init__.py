"""Where one request becomes several ThingsBoard calls."""
