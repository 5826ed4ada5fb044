r"""Words after a number: units, which are ignored, and words that change its value. Other words make it no number.

The rule. A phrase after a number is a unit if its head, the last word before 'per', 'of', 'in', 'for' and the like, is
a known unit or thing ('km', 'dollars', 'egg', 'children') or looks like an English plural: at least four letters, the
last an s, one a vowel ('18 blue marbles'). 'left', 'in total', 'each' may follow or replace it. So '3 abc' and
'2 theta' are not numbers. Multiples ('3 lakh', '2 dozen'), fractions ('5 sixths') and 'below zero' are checked first.
A phrase with a word of `CHANGING` ('or', 'minus', 'squared') is not a unit.
"""

import re
from fractions import Fraction
from functools import lru_cache

SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15,
    "quintillion": 10**18, "lakh": 10**5, "lac": 10**5, "crore": 10**7, "dozen": 12, "score": 20, "gross": 144,
    "ten": 10, "myriad": 10**4, "mn": 10**6, "bn": 10**9,
}  # fmt: skip
_ORDINALS = {
    **dict(zip("third fourth fifth sixth seventh eighth ninth".split(), range(3, 10), strict=True)),
    **dict(zip("tenth eleventh twelfth".split(), range(10, 13), strict=True)),
    **dict(zip("thirteenth fourteenth fifteenth sixteenth".split(), range(13, 17), strict=True)),
    "half": 2, "halve": 2, "quarter": 4, "twentieth": 20, "hundredth": 100, "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
CHANGING = frozenset(
    """
    or and to vs versus not but through plus minus times multiplied divided over mod modulo squared cubed factorial
    less twice double doubled triple thrice root square-root power negative positive below above under sum product
    difference log ln exp sin cos tan csc cot sqrt abs max gcd lcm choose either neither nor if unless except
    than off base baker point degrees-below remainder wrong incorrect maybe perhaps instead no never wait
    theta alpha beta gamma delta epsilon lambda sigma omega phi psi rho tau pi mu nu eta zeta xi kappa chi is was has
    this its does minuses axis basis thus as us plus-minus pos neg tens ones mille permille mil debt
    """.split()
) | frozenset(SCALES)
_BEHIND = frozenset(
    """
    left remaining total altogether more each today together away old long tall high wide deep extra overall apiece now
    only exactly again all both daily weekly monthly yearly annually late early
    """.split()
)
_LINKS = frozenset("per a an each every of in for from on at the with who that which by during after before".split())
_UNITS = frozenset(
    """
    unit millimeter centimeter decimeter meter kilometer millimetre centimetre metre kilometre inch foot yard mile nm
    light-year acre hectare gram kilogram milligram ton tonne ounce pound stone liter litre milliliter millilitre
    quart pint gallon cup teaspoon tablespoon tsp tbsp barrel bushel second minute hour day week fortnight month year
    decade century degree radian rad percent percentage watt kilowatt joule calorie kilocalorie volt ampere ohm newton
    pascal hertz byte bit kilobyte megabyte gigabyte knot
    dollar cent euro pound penny dime nickel quarter rupee peso yen yuan won ruble franc krona krone dinar rand usd eur
    gbp inr jpy cny rmb krw chf cad aud nzd sgd hkd rs buck
    lb lbs hr hrs min mins sec secs mph kph kmh kwh wh sq ft yd yds mi oz kg mg km cm mm ml in pt qt gal ppm fps rpm
    kmph cc kb mb gb tb hz khz mhz kj kcal kpa mol kw mw deg sqft cms pts
    apple orange banana lemon egg cookie cake cupcake pie candy chocolate sandwich pizza slice piece bar bag box bottle
    can jar carton case crate pack packet package basket bucket bowl plate cup glass spoon serving meal ticket book page
    word letter pencil pen marker crayon eraser sticker card stamp coin bill ball marble bead balloon toy doll block
    brick tile board stick rock stone shell flower rose tree plant leaf seed branch row column seat chair table room
    floor house home building apartment window door car truck bus bike boat ship train plane wheel tire step trip lap
    game match point goal run song movie show episode video photo picture painting story lesson class course test
    question problem answer person student teacher child kid boy girl man woman adult baby friend guest player member
    worker employee customer passenger patient parent brother sister son daughter cousin uncle aunt grandchild
    animal dog puppy cat kitten cow horse pig goat chicken duck hen bird rabbit frog turtle snake lion tiger bear
    elephant monkey bee ant spider bug butterfly worm snail crab shark whale
    shirt pair sock shoe hat dress jacket coat ring necklace bracelet item object thing part set group team family
    time way number digit solution root factor term side edge face vertex angle triangle square circle cube cubic
    color shot vote copy unit task job project shift turn round level mark place spot share load batch roll sheet stack
    pile bundle bunch section chapter line street city town country shop store
    """.split()
)
_IRREGULAR = frozenset(
    """
    feet people children men women fish sheep deer mice teeth geese dice cattle series money staff water milk juice
    sugar flour rice food weight distance area volume length width height profit change tax interest cash cost
    grandchildren oxen shrimp aircraft fruit furniture homework work leaves lives wolves halves-of vertices matrices
    """.split()
)
_LENGTHS = frozenset(
    "unit centimeter centimetre meter metre kilometer kilometre inche inch foot feet yard mile cm mm km m ft in".split()
)
_NO_VERBS = frozenset(
    "the a an one two three four five six seven eight nine ten be power and or zero minus negative infinity".split()
)
_CURRENCY_CODES = frozenset("USD EUR GBP INR JPY CNY RMB KRW CHF CAD AUD NZD SGD HKD".split())
# Without a space even fewer words are units: '3m' is as likely algebra as three meters.
_ATTACHED = frozenset(
    """
    km cm mm in ft yd mi kg mg lb oz ml mL hr kW kB MB GB lbs hrs min mins sec secs mph kph kmh cents kWh cm² USD
    dollars percent minutes hours days years meters miles
    """.split()
)
_LETTERS = frozenset("m g L l s h F C W V A J N K B".split())
_GREEK = frozenset("alpha beta gamma delta epsilon lambda sigma omega theta kappa iota zeta".split())
# Plurals that name numbers: 'nineteenths', 'fives', 'septillions'.
_NUMERAL = re.compile(
    r".*(?:teen|tie|illion|dred|dre|sand)ths|.*[bmrtd]illions?|(?:thir|four|fif|six|seven|eigh|nine)teens"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ties|(?:one|two|three|four|five|nine|zero|zeroe|eleven|googol)s"
    r"|(?:grosse|double|inverse|reciprocal)s"
)
_WORD = re.compile(r"[A-Za-z]+")
# A counter word and what it counts, but no half, fraction or second number.
_HAN = re.compile(
    r"(?P<scale>(?:[十百万亿]|千(?![米克瓦]))*)"
    r"(?:(?:平方|立方)?(?:个|個|只|隻|元|块|塊|颗|粒|本|张|張|枚|名|位|人|天|年|月|日|号|小时|小時|时|分钟|分鐘|分|秒|米|千米|"
    r"厘米|公里|公斤|千克|千瓦|克|吨|升|毫升|岁|歲|次|件|套|双|对|条|支|枝|辆|台|页|頁|课|种|組|组|朵|棵|杯|瓶|盒|箱|包|袋|度|角|"
    r"美元|人民币|英里|英尺|英寸|点|點|朋友|苹果|개|명|원|살|시간|本|冊|匹|円|歳|人民幣)(?P<rest>[㐀-鿿가-힣ぁ-ヿ]*))?"
)
_HAN_SCALES = {
    "": 1,
    "十": 10,
    "百": 100,
    "千": 1000,
    "万": 10**4,
    "亿": 10**8,
    "十万": 10**5,
    "百万": 10**6,
    "千万": 10**7,
}
_HAN_CHANGING = re.compile("半|分之|又|或|和|与|到|至|负|零下|不|多|减|加|乘|除|[一二三四五六七八九十百千万亿]")


@lru_cache(maxsize=2**12)
def worth(phrase: str, attached: bool = False) -> Fraction | None:
    """The factor that the words after a number apply: 1 for a unit, 12 for 'dozen', -1 for 'degrees below zero'.

    None: they are not a unit, so this is not a plain number. `attached`: no space between number and words.
    """
    if not phrase.isascii():
        return _worth_in_han(phrase)
    words = _WORD.findall(phrase)
    if attached:
        return Fraction(1) if words and words[0] in _ATTACHED and is_unit(words[1:]) else None
    lowered = [word.lower() for word in words]
    factor = Fraction(1)
    if lowered[-2:] in (["below", "zero"], ["under", "zero"]):
        factor, words, lowered = -factor, words[:-2], lowered[:-2]
    while lowered and (scale := SCALES.get(lowered[0]) or SCALES.get(lowered[0].removesuffix("s"))) is not None:
        factor, words, lowered = factor * scale, words[1:], lowered[1:]
    if lowered and (part := part_named(lowered[0])) is not None:
        factor, words = factor / part, words[1:]
    return factor if is_unit(words) else None


def part_named(word: str) -> int | None:
    """4 for 'fourth', 'fourths' and 'quarters'; None if it names no fraction."""
    return _ORDINALS.get(word) or _ORDINALS.get(word.removesuffix("s"))


def is_unit(words: list[str]) -> bool:
    """Whether words after a number leave its value unchanged. True for no words."""
    if words == ["times"]:
        return True
    if len(words) > 1:
        words = _without_power(_without_purpose(words))
    lowered = [word.lower() for word in words]
    if any(word in CHANGING for word in lowered):
        return False
    head = next((at for at, word in enumerate(lowered) if word in _LINKS), len(words))
    while head and lowered[head - 1] in _BEHIND:
        head -= 1
    return not words or head == 0 or _is_thing(words[head - 1])


def _without_purpose(words: list[str]) -> list[str]:
    """'minutes' for 'minutes to fill the tank'. What follows 'to' must be a verb."""
    at = words.index("to") if "to" in words else 0
    if at == 0 or len(words) == at + 1 or not _is_thing(words[at - 1]):
        return words
    return words if words[at + 1] in _NO_VERBS | CHANGING else words[:at]


def _without_power(words: list[str]) -> list[str]:
    """'meters' for 'meters squared' and 'squared meters', which are square meters. '5 squared' is another number."""
    rest = [word for word in words if word not in ("squared", "cubed")]
    return rest if len(words) == 2 and len(rest) == 1 and rest[0].removesuffix("s") in _LENGTHS else words


def is_known_unit(words: list[str]) -> bool:
    """The same for a single word, which must be listed: other plurals do not count."""
    return not words or (len(words) == 1 and _is_listed(words[0].lower()))


def _is_thing(word: str) -> bool:
    if len(word) == 1:
        return word in _LETTERS
    lowered = word.lower()
    return _is_listed(lowered) or word in _CURRENCY_CODES or _looks_plural(lowered)


def _is_listed(word: str) -> bool:
    singulars = (word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ies") + "y")
    return word in _IRREGULAR or any(singular in _UNITS for singular in singulars)


def _looks_plural(word: str) -> bool:
    if _NUMERAL.fullmatch(word) or word.removesuffix("s") in _GREEK:
        return False
    return len(word) >= 4 and word.endswith("s") and not word.endswith("ss") and any(v in word[:-1] for v in "aeiouy")


def _worth_in_han(phrase: str) -> Fraction | None:
    match = _HAN.fullmatch(phrase.replace(" ", ""))
    if match is None or match["scale"] not in _HAN_SCALES or _HAN_CHANGING.search(match["rest"] or ""):
        return None
    return Fraction(_HAN_SCALES[match["scale"]])
