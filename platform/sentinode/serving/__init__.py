"""The endpoint: bundles behind Ray Serve. Imports nothing that only training needs."""
