"""What operators can watch: Prometheus metrics, kept and rendered by prometheus_client."""
