"""The endpoint: bundles behind Ray Serve. Imports neither torch nor anything else that only training needs."""
