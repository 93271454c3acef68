"""Paths of a rollout, and how returns are compared."""

EXACT = 1e-12
ESTIMATORS = {
    "td0": lambda part: part.TD0(gamma=0.9),
    "n_step": lambda part: part.NStep(gamma=0.9, n=3),
    "lambda_returns": lambda part: part.LambdaReturns(gamma=0.9, lam=0.7),
    "gae": lambda part: part.Gae(gamma=0.9, lam=0.7),
    "vtrace": lambda part: part.VTrace(gamma=0.9),
}
