"""A refusal's code in a sentence with what to do about it, for every command and the miner."""

from __future__ import annotations

from pol_abci.rules import errors

_IN_BASE_UNITS = {errors.FeeTooLow, errors.InsufficientFunds, errors.InvalidAmount}
_ADVICE: dict[type[errors.InvalidTx], str] = {
    errors.MalformedTx: "this program and the node differ in their version; see `pol-abci version`",
    errors.OversizeTx: "no transaction of this program is so long; see `pol-abci version`",
    errors.InvalidSignature: "the node is of another chain; look with `pol-abci status`",
    errors.InvalidSequence: "the account is in use elsewhere at this moment; try again",
    errors.FeeTooLow: "leave out --fee, and the chain's own fee is paid",
    errors.InsufficientFunds: "see what can be spent with `pol-abci balance`",
    errors.InvalidAmount: "send more than 0",
    errors.ChainNotStarted: "wait for the chain's third block",
    errors.StaleProof: "another proof was first; walk from the new head",
    errors.FutureProof: "the node is behind; wait until it has caught up",
    errors.InvalidSteps: "the miner and the node differ in their version; see `pol-abci version`",
    errors.InvalidStamp: "the head has moved since; stamp again",
    errors.PendingProof: "no need to act: the node walks it, and submits it when it is good",
    errors.FalseProof: "the two machines compute differently; run `make test` on both",
    errors.DifficultyNotMet: "no need to act: the node keeps it until the difficulty falls to it",
    errors.NoProgress: "no need to act: the node keeps it until the guard has loosened",
    errors.SecondProof: "another proof was first; walk from the new head",
    errors.ProofRefused: "the node has too much to verify; try again, or ask another node",
    errors.OtherScheme: "the miner's genesis is of another chain; look with `pol-abci status`",
    errors.InvalidBatch: "the miner and the node differ in their version; see `pol-abci version`",
    errors.KeyAlreadyBound: "a key is bound for ever; see `pol-abci validator status`",
    errors.InvalidPossession: "sign with the consensus key of the node's own home, for this chain",
    errors.NotJailed: "there is nothing to leave; see `pol-abci validator status`",
    errors.BarredValidator: "it stays barred: make a new account and a new consensus key",
}
_CLASSES = {kind.code: kind for kind in _ADVICE}


def explain_refusal(code: int, log: str) -> str:
    """Tell why a node refused a transaction: the code's name, the node's words, what to do."""
    kind = _CLASSES.get(code)
    if kind is None:
        return f"code {code}: {log}; this version does not know that code"
    unit = ", in millionths of a coin" if kind in _IN_BASE_UNITS else ""
    reason = f": {log}{unit}" if log else ""
    return f"{kind.__name__} (code {code}){reason}; {_ADVICE[kind]}"
