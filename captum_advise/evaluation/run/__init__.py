"""Images times methods: what is missing is computed, and stored."""
