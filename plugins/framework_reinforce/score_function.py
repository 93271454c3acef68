"""The score-function loss."""

from attrs import field, frozen, validators

from framework import Batch, Evaluation, Loss


@frozen
class REINFORCE:
    """The REINFORCE loss −A·log π(a|s), whose gradient is the policy gradient.

    Source: Williams 1992, doi:10.1007/BF00992696, eq. 4; Sutton & Barto 2018, eq. 13.8.
    """

    entropy: float = field(default=0.0, validator=validators.ge(0.0))  # coefficient of the entropy bonus

    @property
    def needs(self) -> frozenset[str]:
        """Entropies, where they count."""
        return frozenset({"entropies"} if self.entropy else ())

    @property
    def claims(self) -> frozenset[str]:
        """Its gradient is that of whichever objective the advantages are of; an entropy bonus is another objective."""
        unbiased = frozenset() if self.entropy else frozenset({"unbiased:discounted", "unbiased:undiscounted"})
        return unbiased | {"policy_gradient"}

    def __call__(self, batch: Batch, evaluation: Evaluation) -> Loss:
        """Terms `policy` and, with a coefficient, `entropy`; each [B]."""
        terms = {"policy": evaluation.log_probs * -batch.advantages}
        if not self.entropy or evaluation.entropies is None:
            return Loss(terms)
        terms["entropy"] = -self.entropy * evaluation.entropies
        return Loss(terms, {"entropy": evaluation.entropies.detach().mean()})


Reinforce = REINFORCE  # its name before
