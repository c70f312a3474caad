"""What happens to runs, told to an operator's webhooks and services."""
