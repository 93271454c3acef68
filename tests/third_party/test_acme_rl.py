import acme_rl

from framework.testing import conforms

test_laws = conforms(acme_rl)
