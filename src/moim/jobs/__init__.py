"""Batch jobs on the provider's side: submitted, polled and collected."""
