"""Personal data in text: how many e-mail addresses, phone, card, identity and bank account numbers it holds.

A number counts where its check digits are right, or where a numbering plan knows it; digits alone prove nothing. Names,
faces, addresses of houses and dates of birth are not looked for. Plans and check digits are those of the packages
phonenumbers and python-stdnum.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

from corpus.rules import Parameter, Rule

MAX_CHARACTERS = 200_000  # of a text; what lies beyond is not looked at
_AROUND = r"(?<![\w.+/=%-])"  # not inside a longer name, an address or a code
_EMAIL = re.compile(
    _AROUND + r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}(?!(?:png|jpe?g|webp|gif|svg)\b)[A-Za-z]{2,24}(?![\w@])"
)
_DIGITS = re.compile(r"\d(?:[ \t().\u2010-\u2015/-]{0,3}\d){6,}")  # seven digits in a row, as phone numbers are written
_CARD = re.compile(
    r"(?<![\w.,#-])(?:\d{13,19}|\d{4}(?:[ -]\d{4}){2,3}(?:[ -]\d{1,4})?|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\w-])"
)
# The first digits of the issuers' ranges (ISO/IEC 7812): Visa, Mastercard, American Express, Discover, JCB, UnionPay.
_ISSUERS = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|6(?:011|4[4-9]|5)|35(?:2[89]|[3-8])|62")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
# Which numbers of persons are looked for: how each is written, and the module of python-stdnum that checks it. Others
# (of nine or ten digits, without a date or a letter) would be found in every list of articles.
_IDENTITIES = (
    (re.compile(r"(?<!\w)\d{17}[\dXx](?!\w)"), "stdnum.cn.ric"),
    (re.compile(r"(?<!\w)(?:\d{8}|[XYZ]-?\d{7})-?[A-Z](?!\w)"), "stdnum.es.nif"),
    (re.compile(r"(?<!\w)[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z](?!\w)"), "stdnum.it.codicefiscale"),
    (re.compile(r"(?<!\w)[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}(?!\w)"), "stdnum.fr.nir"),
    (re.compile(r"(?<!\w)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)"), "stdnum.br.cpf"),
    (re.compile(r"(?<!\w)\d{6}[-+A-FU-Y]\d{3}[\dA-Y](?!\w)"), "stdnum.fi.hetu"),
    (re.compile(r"(?<![\w.])\d{4} \d{4} \d{4}(?! ?\d|\w)"), "stdnum.in_.aadhaar"),
)  # fmt: skip
_REGIONS = {"en": ("US", "GB"), "zh": ("CN",)}  # whose numbers may stand without the country's code


def emails(text: str, language: str = "en") -> list[str]:
    """Return the e-mail addresses of a text."""
    return _EMAIL.findall(text) if "@" in text else []


def phones(text: str, language: str = "en") -> list[str]:
    """Return the phone numbers that a country's numbering plan has: with a code, or as they are written at home."""
    if not _DIGITS.search(text):
        return []
    import phonenumbers

    found: dict[tuple[int, int], str] = {}
    for region in (None, *_REGIONS.get(language, ())):
        for match in phonenumbers.PhoneNumberMatcher(text, region, phonenumbers.Leniency.VALID, max_tries=1000):
            if _written_as_a_number(match.raw_string):
                found.setdefault((match.start, match.end), match.raw_string)
    taken = [match.span() for match in _CARD.finditer(text) if _is_card(match.group())]
    return [raw for (start, end), raw in sorted(found.items()) if not any(a <= start and end <= b for a, b in taken)]


def _written_as_a_number(raw: str) -> bool:
    """Whether a number is written as people write phone numbers: with its code or with signs between groups."""
    return (
        raw.lstrip("(").startswith(("+", "0")) or bool(re.search(r"\d[ ().\u2010-\u2015-]+\d", raw)) or len(raw) == 11
    )


def cards(text: str, language: str = "en") -> list[str]:
    """Return the numbers of payment cards: an issuer's range, its length, and Luhn's check digit."""
    return [match for match in _CARD.findall(text) if _is_card(match)]


def _is_card(raw: str) -> bool:
    digits = re.sub(r"\D", "", raw)
    return bool(_ISSUERS.match(digits)) and len(set(digits)) > 1 and _valid("stdnum.luhn", digits)


def ibans(text: str, language: str = "en") -> list[str]:
    """Return the bank account numbers whose remainder by 97 is right, of the country's own length."""
    found = (_longest_iban(match.group()) for match in _IBAN.finditer(text))
    return [each for each in found if each]


def _longest_iban(raw: str) -> str | None:
    """Return the beginning of `raw` that is an IBAN: a word in capitals may follow it."""
    parts = raw.split(" ")
    candidates = (" ".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((each for each in candidates if _valid("stdnum.iban", each)), None)


def identities(text: str, language: str = "en") -> list[str]:
    """Return the numbers by which states tell persons apart, of plans with check digits (seven countries')."""
    return [match for pattern, module in _IDENTITIES for match in pattern.findall(text) if _valid(module, match)]


@cache
def _module(name: str):
    return importlib.import_module(name)


def _valid(module: str, number: str) -> bool:
    return _module(module).is_valid(number)


KINDS: Mapping[str, Callable[[str, str], list[str]]] = {
    "email_addresses": emails, "phone_numbers": phones, "card_numbers": cards, "bank_accounts": ibans,
    "identity_numbers": identities,
}  # fmt: skip


def found(text: str, language: str = "en") -> Iterator[tuple[str, str]]:
    """Yield (kind, what stands there) for all personal data of a text."""
    for kind, find in KINDS.items():
        for each in find(text[:MAX_CHARACTERS], language):
            yield kind, each


def _count(kind: str, *, text, language: str) -> list[float]:
    """Return, for each text of an Arrow array, how much of a kind it holds."""
    find = KINDS[kind]
    return [float(len(find((each or "")[:MAX_CHARACTERS], language))) for each in text.to_pylist()]


# Not the paper's. Off unless a catalog or --rule names them.
RULES = [
    Rule(
        name=kind, says=f"texts with {kind.replace('_', ' ')} of people", measure=partial(_count, kind),
        parameters={"max": Parameter(default=0, score=kind, source="ours: none at all")},
    )
    for kind in KINDS
]  # fmt: skip
