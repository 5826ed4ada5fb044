r"""Pairs of a gold answer and an answer as MATH writes them (Hendrycks et al. 2021), with the verdict each deserves.

Written by hand. The gold answers are of the kinds that MATH's 12,500 solutions end in; the answers are ways to write
the same, and the mistakes that are made most.
"""

# ruff: noqa: E501

SAME = [
    # fractions, decimals, mixed numbers
    (r"\frac{3}{4}", r"\dfrac{3}{4}"), (r"\frac{3}{4}", r"\tfrac34"), (r"\frac34", "3/4"), (r"\frac{3}{4}", "0.75"),
    (r"\frac{3}{4}", r"\frac{6}{8}"), (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"-\frac{1}{2}", "-0.5"),
    (r"\frac{1}{2}", ".5"), (r"\frac{11}{2}", r"5\frac{1}{2}"), ("2.5", r"\frac{5}{2}"), (r"\frac{14}{3}", "14/3"),
    (r"\frac{9}{19}", r"\displaystyle \frac{9}{19}"), (r"\frac{x+1}{2}", r"\frac{1+x}{2}"),
    (r"\frac{2}{\sqrt{3}}", r"\frac{2\sqrt{3}}{3}"), (r"\frac{a}{b}", "a/b"), ("0", "0.0"),
    # numbers, signs, separators, units, money, percent, degrees
    ("1000000", "1,000,000"), ("10,080", "10080"), (r"10{,}080", "10,080"), (r"10,\!080", "10080"), ("-3", "−3"),
    ("1.0", "1"), (r"\$18.90", "18.90"), (r"\$32,\!348", "32348"), (r"36\%", "36"), ("36", r"36\%"),
    (r"90^\circ", "90"), (r"75^\circ", r"75^{\circ}"), (r"75^\circ", "75 degrees"), (r"5 \text{ cm}", "5"),
    ("18", r"18 \text{ square units}"), (r"12\text{ inches}", "12 inches"), ("2.54", r"2.54\text{ cm}"),
    ("6", "6 apples"), (r"60\text{ mph}", "60 mph"), ("1.2e3", "1200"), (r"3 \times 10^4", "30000"),
    (r"6.02 \cdot 10^{2}", "602"), ("2^{10}", "1024"), ("720", "6!"), ("5", r"\sqrt{25}"), ("4", "2+2"),
    # roots, powers, logarithms, constants
    (r"\sqrt{12}", r"2\sqrt{3}"), (r"2\sqrt{3}", r"2 \sqrt 3"), (r"\sqrt{\frac{1}{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"), (r"3+2\sqrt{2}", r"2\sqrt{2}+3"), (r"(1+\sqrt{2})^2", r"3+2\sqrt{2}"),
    (r"\pi", r"\pi"), (r"4\pi", r"4 \pi"), (r"\frac{\pi}{3}", r"\pi/3"), (r"e^2", r"e\cdot e"),
    (r"\log_2 8", "3"), (r"\ln 4", r"2\ln 2"), (r"8^{1/3}", "2"), (r"\frac{1}{x^2}", "x^{-2}"),
    # algebra
    ("x^2+2x+1", "(x+1)^2"), ("2x-3", "-3+2x"), ("x(x-1)", "x^2-x"), ("3x^2y", "3yx^2"), (r"\frac{x^2-1}{x-1}", "x+1"),
    ("(x-2)(x+2)", "x^2-4"), ("a^2-b^2", "(a+b)(a-b)"), ("2a+2b", "2(a+b)"), (r"5x \cdot 2", "10x"),
    ("y=2x+3", "y = 3+2x"), ("x=5", "5"), ("5", "x = 5"), ("n=12", "12"), ("x=5", "x = 5"), (r"f(x)=x^2", "x^2"),
    # intervals, inequalities, sets, tuples, lists
    ("(2,5)", "(2, 5)"), ("[2,5)", r"\left[2,5\right)"), (r"(-\infty,3]", r"(-\infty, 3]"), (r"(0,\infty)", r"(0, +\infty)"),
    (r"(-\infty,1)\cup(2,\infty)", r"(-\infty, 1) \cup (2, \infty)"), (r"[1,2]\cup[3,4]", r"[3,4] \cup [1,2]"),
    (r"\{1,2,3\}", r"\{3,2,1\}"), (r"\{1,2,3\}", "1,2,3"), ("1,2,3", "3, 2, 1"), ("1,-2", "-2 and 1"),
    ("(3,-1)", r"\left(3,-1\right)"), (r"\left(\frac{1}{2},3\right)", "(0.5, 3)"), ("(1,2,3)", "(1, 2, 3)"),
    ("(0,0),(1,1)", "(1,1),(0,0)"), (r"\emptyset", r"\emptyset"), (r"x \le 3", r"x \leq 3"), ("x<5", "x < 5"),
    (r"x>2", r"2<x"), (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"), (r"\pm 3", r"3, -3"),
    # matrices, vectors
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ -2 \end{bmatrix}"),
    (r"\begin{pmatrix} 1/2 & 0 \\ 0 & 1 \end{pmatrix}", r"\begin{pmatrix} 0.5 & 0 \\ 0 & 1 \end{pmatrix}"),
    # complex numbers
    ("3+4i", "4i+3"), ("i", "i"), ("2i", r"2 \cdot i"), ("-1", "i^2"), ("12", r"\text{twelve}"), (r"\frac{1+i}{2}", r"\frac{1}{2}+\frac{i}{2}"),
    # words, choices, other bases
    (r"\text{Evelyn}", "Evelyn"), (r"\text{even}", "even"), (r"\text{(C)}", "C"), ("(C)", "C"), (r"\text{Tuesday}", "tuesday"),
    (r"\text{No solution}", "no solution"), (r"\text{parabola}", r"\textbf{parabola}"), ("1011_2", "1011_2"),
    (r"2516_8", r"2516_{8}"), (r"\text{6:00 PM}", r"\text{6:00 PM}"), ("2:3", "2:3"), (r"\text{odd}", r"\mbox{odd}"),
]  # fmt: skip

OTHER = [
    # numbers
    (r"\frac{3}{4}", r"\frac{4}{3}"), (r"\frac{3}{4}", "0.74"), (r"\frac{1}{3}", "0.33"), (r"-\frac{1}{2}", r"\frac{1}{2}"),
    ("1000000", "100000"), ("18", "-18"), ("18", "180"), ("18", "1.8"), ("0", "1"), (r"5\frac{1}{2}", r"\frac{5}{2}"),
    (r"\$18.90", "18.09"), (r"90^\circ", "45"), ("6", "7 apples"), (r"2^{10}", "20"), ("720", "5!"), ("5", r"\sqrt{24}"),
    (r"3 \times 10^4", "3000"), ("36", "0.36"),
    # roots, powers, constants
    (r"2\sqrt{3}", r"3\sqrt{2}"), (r"\sqrt{12}", r"\sqrt{21}"), (r"4\pi", "4"), (r"4\pi", "12.566"), (r"\pi", "3.14"),
    (r"\frac{\pi}{3}", r"\frac{\pi}{6}"), ("e^2", "2e"), (r"\ln 4", r"4\ln 2"), (r"\sqrt{2}", "1.41421356"),
    (r"3+2\sqrt{2}", r"3-2\sqrt{2}"), (r"\sqrt[3]{2}", r"\sqrt{2}"),
    # algebra
    ("x^2+2x+1", "x^2+1"), ("2x-3", "2x+3"), ("x(x-1)", "x^2-1"), ("2a+2b", "2a+b"), ("3x^2y", "3xy^2"), ("x+1", "y+1"),
    ("x^2", "2x"), ("y=2x+3", "y=2x-3"), ("5", "x=4"), ("x+1", "1"), ("2ab", "ab"), ("x", "-x"),
    # intervals, inequalities, sets, tuples, lists
    ("(2,5)", "[2,5]"), ("[2,5)", "(2,5]"), ("(2,5)", "(2,6)"), (r"(-\infty,3]", r"(-\infty,3)"), (r"(0,\infty)", r"(0,1)"),
    (r"\{1,2,3\}", r"\{1,2\}"), (r"\{1,2\}", r"\{1,2,3\}"), ("1,2,3", "1,2"), ("1,-2", "1,2"), ("(3,-1)", "(-1,3)"),
    ("(1,2,3)", "(1,2)"), ("(1,2)", "1"), ("3", "2, 3"), ("3", "3 or 5"), ("x<5", r"x \le 5"), ("x<5", "x>5"),
    (r"\pm 3", "3"), ("3", r"\pm 3"), (r"[1,2]\cup[3,4]", "[1,4]"),
    # matrices, complex numbers
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("3+4i", "3-4i"), ("3+4i", "7i"), ("2i", "2"), ("-1", "i"),
    # words, choices, other bases
    (r"\text{Evelyn}", "Evelin"), (r"\text{even}", "odd"), (r"\text{(C)}", "B"), ("(C)", "(D)"), (r"\text{Tuesday}", "Thursday"),
    ("1011_2", "1101_2"), ("1011_2", "11"), ("2:3", "3:2"), (r"\text{6:00 PM}", r"\text{6:00 AM}"), ("2516_8", "2516_7"),
    (r"\text{odd}", "1"), ("12", r"\text{twenty}"),
]  # fmt: skip
