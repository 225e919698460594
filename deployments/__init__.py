"""What it takes to run the flows somewhere."""
