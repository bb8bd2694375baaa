"""What costs latency without anybody having asked for it: a slow clock, and cores that save power."""

from __future__ import annotations

from service.doctor.finding import Finding, note, ok
from service.doctor.surroundings import Surroundings

SLOW_CLOCKS = {"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies", "xen"}
SAVING_GOVERNORS = {"powersave", "conservative"}


def check_clock(surroundings: Surroundings) -> list[Finding]:
    """Can the time be read without a system call? The server does it several times for each request."""
    folder = surroundings.sys / "devices/system/clocksource/clocksource0"
    clock = surroundings.read(folder / "current_clocksource")
    if not clock:
        return []
    if clock not in SLOW_CLOCKS:
        return [ok("clock", clock)]
    others = surroundings.read(folder / "available_clocksource")
    step = f"clocksource=tsc on the kernel's command line, if it is stable here; there are: {others}"
    return [note("clock", clock, "each look at the clock is a system call, up to some µs", step)]


def check_governor(surroundings: Surroundings) -> list[Finding]:
    """Do the cores run at full speed, or wait for load before they do?"""
    files = surroundings.sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    governors = {surroundings.read(path) for path in files} - {""}
    if not governors:
        return []
    words = ", ".join(sorted(governors))
    if not governors & SAVING_GOVERNORS:
        return [ok("CPU governor", words)]
    meaning = "the clock rises only after load has come, so lone requests are answered more slowly"
    return [note("CPU governor", words, meaning, "cpupower frequency-set --governor performance, on the host")]
