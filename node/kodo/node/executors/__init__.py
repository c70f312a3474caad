"""What runs flows: the interface, its implementations, and what runs beside a flow."""
