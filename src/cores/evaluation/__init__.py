"""Evaluation: metrics that add up, the evaluator, tables and the report."""
