"""What an architecture search is, without Ray: spaces, trials, budgets, the Pareto front, the winner, the report."""
