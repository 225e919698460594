"""Names of item types and regions, and what else is known of them."""
