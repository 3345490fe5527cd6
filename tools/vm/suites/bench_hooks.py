# SPDX-License-Identifier: GPL-2.0
"""make bench-hooks: measures C without the hook series, and with it but without an engine."""

import products
import results
from suites import bench

# The maximum number of instructions that the hooks may cost.
_ALLOWED = 5


def main():
    """Measures two kernels, in a boot each, and compares."""
    plain, _ = bench.measure(products.Kernel("unpatched"), engine=None)
    kernel = products.Kernel()
    hooks, messages = bench.measure(kernel, engine=None)
    metrics = [{"name": one["name"], "ranges": one["ranges"], "unpatched": one["c"],
                "hooks": other["c"]} for one, other in zip(plain, hooks)]
    bench.print_table(metrics, [("unpatched", "unpatched"), ("hooks", "hooks")])
    tests = [results.test(f"{bench.label(metric)}: at most {_ALLOWED} more",
                          metric["hooks"] - metric["unpatched"] <= _ALLOWED,
                          f"{metric['hooks'] - metric['unpatched']:+.1f}") for metric in metrics]
    tests.append(results.kernel_log(messages))
    return results.conclude("bench-hooks", tests, kernel=kernel.version, unit="instructions",
                            metrics=metrics)
