# SPDX-License-Identifier: GPL-2.0
"""make bench-hooks: measures C without the hook series, and with it but without an engine."""

import products
import results
from suites import bench

# The maximum number of instructions that the hooks may cost an MSR access or another ioctl.
_ALLOWED = 2


def main():
    """Measures two kernels, in a boot each, and compares."""
    plain, _ = bench.measure(products.Kernel("unpatched"), engine=None)
    kernel = products.Kernel()
    hooks, messages = bench.measure(kernel, engine=None)
    metrics = [{"name": one["name"], "ranges": one["ranges"], "unpatched": one["c"],
                "hooks": other["c"], "msrs": one.get("msrs", 1)}
               for one, other in zip(plain, hooks) if one["c"] is not None]
    bench.print_table(metrics, [("unpatched", "unpatched"), ("hooks", "hooks")])
    tests = []
    for metric in metrics:
        more = (metric["hooks"] - metric["unpatched"]) / metric["msrs"]
        # The figures are rounded to tenths.
        tests.append(results.test(f"{bench.label(metric)}: at most {_ALLOWED} more",
                                  round(more, 1) <= _ALLOWED, f"{more:+.1f}"))
    tests.append(results.kernel_log(messages))
    return results.conclude("bench-hooks", tests, kernel=kernel.version, unit="instructions",
                            metrics=metrics)
