"""What calls used and what that cost, counted in scopes, and budgets that limit it."""
