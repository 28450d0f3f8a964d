"""What a transaction will cost, told before it is signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pol_abci.client.keys import format_address, format_amount
from pol_abci.client.sending import get_pending_account
from pol_abci.rules.errors import PolError
from pol_abci.rules.params import Amount

if TYPE_CHECKING:
    from pol_abci.client.light import LightClient
    from pol_abci.client.rpc import RpcClient
    from pol_abci.rules.codec import Transfer
    from pol_abci.rules.params import Address, LedgerParams


class TooExpensive(PolError):
    """More than the account has, or less than the chain asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What leaves the sender's account, and what is there. All in base units.

    `burn` is what a new account costs, 0 where the recipient provably has one. It is the most that
    may be burned: what waits for a block may make the account first.
    """

    amount: Amount
    fee: Amount
    burn: Amount
    balance: Amount

    @property
    def total(self) -> Amount:
        """All that may leave the account."""
        return Amount(self.amount + self.fee + self.burn)


async def compute_bill(
    rpc: RpcClient,
    light: LightClient,
    params: LedgerParams,
    sender: Address,
    *,
    transfer: Transfer | None = None,
    fee: Amount | None = None,
) -> Bill:
    """Tell what a transaction costs; without a fee given it is the smallest that is taken.

    Raises
    ------
    TooExpensive
        When the account cannot pay it, or the fee is too low.
    InvalidProof, ChainNotBegun, RpcError, NodeUnreachable
        When the node does not say.
    """
    if fee is None:
        fee = params.min_fee
    if fee < params.min_fee:
        raise TooExpensive(
            f"a fee of {format_amount(fee)} is too low: this chain takes "
            f"{format_amount(params.min_fee)} or more; leave out --fee to pay just that"
        )
    account = await get_pending_account(rpc, sender)
    is_new = transfer is not None and await light.get_account(transfer.recipient) is None
    bill = Bill(
        amount=transfer.amount if transfer else Amount(0),
        fee=fee,
        burn=params.account_burn if is_new else Amount(0),
        balance=Amount(account.balance),
    )
    if bill.balance < bill.total:
        burn = f", up to {format_amount(bill.burn)} burned for a new account" if bill.burn else ""
        raise TooExpensive(
            f"{format_amount(bill.total)} coins are needed (a fee of {format_amount(fee)}{burn}), "
            f"and {format_address(sender)} has {format_amount(bill.balance)} to spend"
        )
    return bill
