"""Which account a person belongs to: what events and identifiers say of it, and how statements are weighed.

    source                                              says
    a `group` event                                     joined, at its time
    `Account Removed User` with a group id              left, at its time
    an e-mail address of a company's domain             joined, before all time
    an identifier in the table `people`                 joined, before all time

For each account the newest statement holds; at the same instant, *left* does.
"""

from pipeline.accounts.alerts import Alert
from pipeline.accounts.free_mail import FREE_MAIL
from pipeline.accounts.rules import GROUPS_ONLY, NAMESPACE, AccountRules, belongs_to, identifier_of, stated

__all__ = ["FREE_MAIL", "GROUPS_ONLY", "NAMESPACE", "AccountRules", "Alert", "belongs_to", "identifier_of", "stated"]
