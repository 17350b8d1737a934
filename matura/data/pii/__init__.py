"""Find, mask and replace personal data and secrets.

E-mail, phone, payment card, IBAN, keys and passwords, US social security numbers; on demand public IP addresses and
personal numbers of listed countries. Patterns only propose; where a checksum or a numbering plan exists it decides
(Luhn, ISO 13616, python-stdnum, the phone plans of libphonenumber), so versions, dates, ISBNs and hashes are left
alone. Names and street addresses are only found by a finder that the user brings.
"""

from matura.data.pii.find import find
from matura.data.pii.pseudonyms import pseudonymise
from matura.data.pii.spans import (
    CARD,
    EMAIL,
    IBAN,
    IP,
    KEY,
    KINDS,
    NATIONAL_ID,
    PHONE,
    SSN,
    Span,
    count,
    mask,
)

__all__ = [
    "CARD",
    "EMAIL",
    "IBAN",
    "IP",
    "KEY",
    "KINDS",
    "NATIONAL_ID",
    "PHONE",
    "SSN",
    "Span",
    "count",
    "find",
    "mask",
    "pseudonymise",
]
