"""Plain numbers: what is one, what it is worth, and that no text is expensive."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rewards.numeric import canonical_number, parse_number

NUMBERS = {
    "18": 18, "007": 7, "-3": -3, "−3": -3, "–3": -3, "- 3": -3, "+4": 4, "(3)": 3, "(-3)": -3,
    "1,234": 1234, "109,200,000": 109200000, "1{,}234": 1234, r"1\,234": 1234, r"10,\!080": 10080, "1,234.50": "2469/2",
    ".5": "1/2", "5.": 5, "5.00": 5, "0.333": "333/1000", "1e3": 1000, "5.e3": 5000, "2.5E-4": "1/4000",
    "$18": 18, "-$18": -18, "$-18": -18, r"\$18": 18, "18$": 18, "18 dollars": 18, "USD 18": 18, "18 USD": 18,
    "€5": 5, "5 €": 5, "£3.50": "7/2", "US$18": 18,
    "50%": 50, "50 %": 50, r"50\%": 50, "50 percent": 50,
    "3/4": "3/4", "6 / 8": "3/4", "-3/4": "-3/4", "1 1/2": "3/2", "-1 1/2": "-3/2", "½": "1/2", "1½": "3/2",
    r"\frac{1}{2}": "1/2", r"-\dfrac{1}{2}": "-1/2", r"\frac{-1}{2}": "-1/2", r"1\frac{1}{2}": "3/2", r"\frac12": "1/2",
    "12 apples": 12, "5 km/h": 5, "5km": 5, "5 m²": 5, "18 eggs per day": 18, "7 days a week": 7, "18 °C": 18,
    r"18\text{ dollars}": 18, r"5\text{ m}": 5, r"90^\circ": 90, "1 1/2 cups": "3/2",
    "3 million": 3000000, "$1.5 million dollars": 1500000, "5 hundred thousand": 500000, "2 dozen": 24,
    "3 lakh": 300000,
    "5 sixths": "5/6", "1 third": "1/3", "5 below zero": -5, "5 degrees below zero": -5, "3 quarters of a mile": "3/4",
    "two": 2, "twenty-one": 21, "negative five": -5, "one hundred and five": 105, "two thousand twenty": 2020,
    "three and a half": "7/2", "two thirds": "2/3", "a dozen": 12, "half a dozen eggs": 6, "eleven hundred": 1100,
    "one hundred twenty-three thousand four hundred fifty-six": 123456, "negative 5": -5, "minus 5": -5,
    "3×10⁸": 300000000, "3 x 10^8": 300000000, r"2.5 \times 10^{-3}": "1/400", r"0.\overline{3}": "1/3",
    r"0.1\overline{6}": "1/6", "1 234 567": 1234567, "1~234": 1234, "1\u202f234": 1234, r"11,\! 111": 11111,
    "42个": 42, "42个苹果": 42, "3万": 30000, "42 元": 42, "₩10": 10, "Rs. 10": 10, "CHF 10": 10, "10 sq. ft.": 10,
    "18 blue marbles left": 18, "18 in total": 18, "7 people": 7, "1 apple": 1, "10 m/s": 10,
    "18.": 18, "18,": 18, "**18**": 18, "**18.**": 18, "$18$": 18, "$$18$$": 18, r"\(18\)": 18, r"\[18\]": 18,
    "`18`": 18, "**18** eggs": 18, "$18$ dollars": 18,
    "１８": 18, "１，２３４": 1234,
}  # fmt: skip

NOT_NUMBERS = [
    "", "-", ".", "$", "nan", "inf", "five three", "twenty forty",
    "one and one", "seven samurai", "3 abc", "2 theta", "2 negative",
    "0x10", "1_000", "٣", "e5", "1e", "1e9999", "1e999999999",
    "1,2", "12,34", "1,23,456", "0,123", "1 234", "1.2.3", "--3", "-$-18", "3%%", "3/0", "1/2/3",
    "3 or 4", "3 and 4", "3, 4, 5", "3-4", "3–4", "5 - 3", "3 to 4", "between 3 and 4", "3 hours 20 minutes",
    "3x", "3 x", "2ab", "3m", "3²", "5!", "3 squared", "2 sin x", "3 pm", "3million",
    "3个半", "3 or so", "5!", "7 remainder 2", "3 less",
    r"\frac{1}{2}3", r"\text{3}4", r"2\pi", r"\sqrt{4}", "__import__('os')", "9**9", "2**3**4", "$3$4$",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_a_plain_number_has_its_exact_value(text: str, value: int | str) -> None:
    assert parse_number(text) == Fraction(value)


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_anything_ambiguous_is_not_a_plain_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    "text", ["9" * 10**6, "*" * 10**6, "1," * 10**6, "1/" + "9" * 10**6, "$" * 199, "(" * 99 + ")" * 99, "1 a" * 66]
)
def test_no_text_takes_long(text: str) -> None:
    start = time.thread_time()
    assert parse_number(text) is None
    assert time.thread_time() - start < 0.1


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_reads_back_however_it_is_written(number: Fraction) -> None:
    sign, size = "-" if number < 0 else "", abs(number)
    whole, rest = divmod(size.numerator, size.denominator)
    spellings = [
        canonical_number(number),
        rf"${sign}\frac{{{size.numerator}}}{{{size.denominator}}}$",
        f"**{sign}{whole:,} {rest}/{size.denominator}**.",
        f"{sign}${size.numerator:,}/{size.denominator} dollars",
    ]
    assert {parse_number(text) for text in spellings} == {number}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
def test_a_decimal_reads_back_however_it_is_written(number: object) -> None:
    value = Fraction(str(number))
    spellings = [f"{number:f}", f"{number:,f}", f"{number:f}00 apples", f"{number:.4f}%"]
    assert {parse_number(text) for text in spellings} == {value}
