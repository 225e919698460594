"""A stand-in for ESI's market: real item types, price levels and page counts; orders are made up from a seed."""
