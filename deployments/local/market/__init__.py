"""A stand-in for ESI's market orders, from a seed: real item types, prices and page counts; orders made up."""
