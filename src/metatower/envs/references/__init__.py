"""What is provably best in an environment: exact values and optimal policies, to measure regret by."""
