"""Policies for laws."""

from framework.setup.loading import load
from framework.testing.checking import laws

LOADED = load(["reinforce", "policies"])
LAWS = {law.name: law for law in laws("policy")}
