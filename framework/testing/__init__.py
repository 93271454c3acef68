"""The conformance kit: laws that every part must keep to, and strategies that draw the cases which try them.

Needs Hypothesis: `pip install framework-rl[testing]`.
"""
