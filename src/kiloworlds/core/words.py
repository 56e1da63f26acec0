"""Numbers and times as people read them."""


def number(value: float) -> str:
    """About four significant digits: 4.2e-05, 0.0123, 12.35, 475.3, 1,234,567."""
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.{digits(value)}f}"


def digits(value: float) -> int:
    """How many decimals `number` shows."""
    bounds = (10_000, 100, 10, 0.1)
    return sum(abs(value) < bound for bound in bounds)


def duration(seconds: float) -> str:
    """Such as 0:07, 12:40 or 3:02:11."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
