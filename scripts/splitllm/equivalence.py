# SPDX-License-Identifier: GPL-2.0-only
"""Whether two samples have the same mean, as far as a margin says: two one-sided tests (TOST) of Welch's t.

No difference found is no proof of none. Here both hypotheses "the means differ by more than the margin, upwards" and
"downwards" must be rejected at level ALPHA, which is the case where the interval of confidence 1 - 2 ALPHA of the
difference lies inside of the margin (Schuirmann, 1987). A change is shown where the interval at level CHANGE lies outside
of it: many metrics are compared, and most changes that are real are far from chance. Else nothing is shown.
"""

import math
from dataclasses import dataclass

ALPHA = 0.05
CHANGE = 0.001
MOST = 100_000  # repetitions that a study can have


def beta_fraction(a, b, x):
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    tiny, value, c, d = 1e-300, 1.0, 1.0, 0.0
    for i in range(1, 10_000):
        m = i // 2
        if i % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + term * d or tiny)
        c = 1 + term / c or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return 1 / value


def incomplete_beta(a, b, x):
    """I_x(a, b), regularised."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * beta_fraction(a, b, x) / a
    return 1 - front * beta_fraction(b, a, 1 - x) / b


def t_above(t, degrees):
    """P(T > t) of Student's distribution; degrees need not be whole."""
    tail = incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2
    return tail if t >= 0 else 1 - tail


def t_quantile(p, degrees):
    """The t with P(T > t) = p, for p below 1/2."""
    low, high = 0.0, 1.0
    while t_above(high, degrees) > p:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_above(middle, degrees) > p else (low, middle)
    return high


@dataclass(frozen=True)
class Sample:
    """Independent values: how many, their mean and standard deviation (with n - 1)."""

    count: int
    mean: float
    deviation: float

    @staticmethod
    def of(values):
        mean = values[0] + math.fsum(value - values[0] for value in values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return Sample(len(values), mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0)


def interval(before, now, alpha=ALPHA):
    """(low, high), the interval of confidence 1 - 2 alpha of now.mean - before.mean; both have two values at least."""
    parts = [sample.deviation**2 / sample.count for sample in (before, now)]
    error = math.sqrt(sum(parts))
    difference = now.mean - before.mean
    if error == 0.0:
        return difference, difference
    degrees = sum(parts) ** 2 / sum(part**2 / (sample.count - 1) for part, sample in zip(parts, (before, now)))
    half = t_quantile(alpha, degrees) * error
    return difference - half, difference + half


def judge(before, now, margin):
    """"equivalent", "changed" or "cannot tell", and the interval."""
    low, high = interval(before, now)
    if -margin < low and high < margin:
        return "equivalent", (low, high)
    least, most = interval(before, now, CHANGE)
    return "changed" if least > margin or most < -margin else "cannot tell", (low, high)


def enough(before, now, margin):
    """(n, whether both need them): repetitions that would tell, if means and deviations stay; None if no number would.

    n of the new sample if those of `before` suffice, else n of both.
    """

    def least(decided):
        low, high = 1, 2
        while not decided(high):
            low, high = high, 2 * high
            if low > MOST:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decided(middle) else (middle, high)
        return high

    def with_counts(first, second):
        samples = (Sample(first, before.mean, before.deviation), Sample(second, now.mean, now.deviation))
        return judge(*samples, margin)[0] != "cannot tell"

    alone = least(lambda n: with_counts(before.count, n))
    if alone is not None and alone <= MOST:
        return alone, False
    both = least(lambda n: with_counts(n, n))
    return None if both is None or both > MOST else (both, True)
