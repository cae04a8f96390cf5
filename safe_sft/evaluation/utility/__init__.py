"""How well a model does its task: scored answers, code run in a sandbox, lm-evaluation-harness."""
