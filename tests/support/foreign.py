"""Distributions made on the spot: a folder with modules and the metadata that pip would have written."""

import sys
import textwrap


def publish(folder, monkeypatch, distribution, points, version="1.0", **modules):
    """Install modules as a distribution whose entry points `{name: module}` register plugins."""
    site = folder / distribution.replace("-", "_")
    metadata = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    rows = "\n".join(f"{name} = {module}" for name, module in points.items())
    (metadata / "entry_points.txt").write_text(f"[framework.plugins]\n{rows}\n")
    for name, source in modules.items():
        (site / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(site))
    for name in modules:  # what the test imports is forgotten after it
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]


ESTIMATOR = """
    from attrs import field, frozen, validators
    from framework import Estimate, hookimpl
    from framework.returns import rewards_to_go

    @frozen
    class Halved:
        "Half of what follows."
        needs = frozenset({"complete_episodes"})
        factor: float = field(default=0.5, validator=validators.gt(0))  # of the returns

        def __call__(self, rollout):
            returns = self.factor * rewards_to_go(rollout.rewards, rollout.terminated | rollout.truncated, 1.0)
            return Estimate(returns, returns)

    @hookimpl
    def estimators():
        return {"halved": Halved}
"""
"""A plugin's whole module: one estimator."""


GYM_WORLD = """
class World(gymnasium.Env):
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.zeros(1, np.float32), reward(action), self.clock == LIMIT, False, {}
"""
