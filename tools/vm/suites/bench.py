# SPDX-License-Identifier: GPL-2.0
"""make bench: counts the instructions of MSR accesses and ioctls with C and with the engine, and in a
second boot cache lines.  A metric that does not count instructions has a "unit".
"""

import json
import os
import re

import boot
import products
import results
from suites import bench_lines, job, on_variant, variant

# What the picture leaves out: its bars are relative to C's, which may be 0.
_DETAILS = re.compile(r"_(code_lines|data_lines|misses_cold|misses_warm)$")

# What other kernels must not make slower than C: accesses. Calls that copy or allocate structures are left
# out: hardened usercopy checks only copies whose size the compiler does not know, and C's are constants.
_PER_ACCESS = re.compile(r"guest_|user_space_exit|get_msrs|set_msrs")


def measure(kernel, engine="plain"):
    """Measures the metrics in one boot of QEMU, with a clock that counts instructions."""
    vm = boot.Vm(kernel, engine=engine, programs=products.programs())
    log, messages = vm.run(job("bench.sh"), timeout=600, icount=True)
    if log.exit_code or not log.json():
        raise boot.RunError("kvm-msr-bench failed:\n" + "\n".join(log.lines[-10:]))
    return log.json()[-1]["metrics"], messages


def label(metric):
    """A metric's name for people."""
    return f"{metric['name']}, {metric['ranges']} ranges" if metric["ranges"] else metric["name"]


def check_limits(metrics, limits):
    """A test for each limit of bench-limits.json."""
    value = {(metric["name"], metric["ranges"]): metric for metric in metrics}
    tests = []
    for limit in limits:
        for ranges in limit["ranges"]:
            name = limit["metric"]
            metric = value.get((name, ranges))
            title = f"{name}, {ranges} ranges"
            if metric is None:
                tests.append(results.test(title, False, "not measured"))
                continue
            if "engine_to_c" in limit:
                bound = limit["engine_to_c"] * metric["c"]
                title += f": engine <= {limit['engine_to_c']:g} x C"
            elif "at_most" in limit:
                bound = limit["at_most"]
                title += f": engine <= {bound:g}"
            elif "engine_above" in limit:
                other = limit["engine_above"]
                bound = value[other, ranges]["engine"] + limit["by"]
                title += f": engine <= {limit['by']} above {other}"
            else:
                other = limit["engine_above_ranges"]
                bound = value[name, other]["engine"] + limit["by"]
                title += f": engine <= {limit['by']} above {other} ranges"
            tests.append(results.test(title, metric["engine"] <= bound,
                                      f"{metric['engine']:g} of at most {bound:g}"))
    return tests


def print_table(metrics, columns):
    """Prints the figures, and compares each column with the first."""
    print(f"{'instructions':32}" + "".join(f"{title:>12}" for _, title in columns) +
          "".join(f"{title + ' to ' + columns[0][1]:>22}" for _, title in columns[1:]))
    for metric in metrics:
        figures = [metric[key] for key, _ in columns]
        line = f"{label(metric):32}" + "".join(
            f"{'-':>12}" if figure is None else f"{figure:12.1f}" for figure in figures)
        for figure in figures[1:]:
            if None in (figure, figures[0]):
                continue
            line += f"{f'{figure - figures[0]:+.1f}':>13}{f'{figure / figures[0]:.3f}':>9}"
        print(line)


def draw(metrics, path):
    """Draws the figures as bars. For each metric, C is 100 %."""
    metrics = [metric for metric in metrics
               if metric["c"] and not _DETAILS.search(metric["name"])]
    left, width, row = 230, 420, 44
    height = 50 + row * len(metrics)
    scale = width / max(1.2, *(metric["engine"] / metric["c"] for metric in metrics))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 130}" '
           f'height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{left}" y="20">Instructions and cache lines, C = 100 % '
           '(<tspan fill="#8a8a8a">C</tspan>, <tspan fill="#b7410e">engine</tspan>)</text>']
    for position, metric in enumerate(metrics):
        top = 36 + row * position
        out.append(f'<text x="{left - 10}" y="{top + 20}" text-anchor="end">{label(metric)}</text>')
        for offset, key, colour in ((0, "c", "#8a8a8a"), (16, "engine", "#b7410e")):
            length = scale * metric[key] / metric["c"]
            out.append(f'<rect x="{left}" y="{top + offset}" width="{length:.1f}" height="14" '
                       f'fill="{colour}"/>')
            out.append(f'<text x="{left + length + 6:.1f}" y="{top + offset + 11}">'
                       f'{round(metric[key], 0 if metric[key] > 10 else 2):g}</text>')
    out.append(f'<line x1="{left + scale:.1f}" y1="30" x2="{left + scale:.1f}" '
               f'y2="{height - 10}" stroke="black" stroke-dasharray="3,3"/>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n</svg>\n")


def name():
    """The name of the results file."""
    return on_variant("bench")


def _compare(kernel):
    """Measures C and the engine on another of the project's kernels, and what that costs them."""
    base, _ = measure(products.Kernel())
    metrics, messages = measure(kernel)
    metrics = [{**metric, "base_c": before["c"], "base_engine": before["engine"]}
               for before, metric in zip(base, metrics, strict=True)]
    for side, title in (("c", "C"), ("engine", "engine")):
        print_table([metric for metric in metrics if metric[f"base_{side}"] is not None],
                    [(f"base_{side}", title), (side, variant())])
        print()
    compared = [metric for metric in metrics if metric["c"] is not None]
    print_table(compared, [("c", "C"), ("engine", "engine")])
    tests = [results.test(f"{label(metric)}: engine <= C", metric["engine"] <= metric["c"],
                          f"{metric['engine']:g} of at most {metric['c']:g}")
             for metric in compared if _PER_ACCESS.match(metric["name"])]
    tests.append(results.kernel_log(messages))
    return results.conclude(name(), tests, kernel=kernel.version, unit="instructions",
                            metrics=metrics)


def main():
    """Measures C and the engine in one boot, prints and draws the figures, checks the limits."""
    if variant() != "base":
        return _compare(products.Kernel(variant()))
    kernel = products.Kernel()
    metrics, messages = measure(kernel)
    print_table(metrics, [("c", "C"), ("engine", "engine")])
    lines = bench_lines.Measurement(kernel)
    lines.print_table()
    metrics += lines.metrics()
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(os.path.join(here, "bench-limits.json"), encoding="utf-8") as file:
        tests = check_limits(metrics, json.load(file))
    tests += [results.kernel_log(messages), *lines.tests()]
    os.makedirs(products.RESULTS, exist_ok=True)
    lines.write_detail()
    draw(metrics, os.path.join(products.RESULTS, "bench.svg"))
    return results.conclude(name(), tests, kernel=kernel.version, unit="instructions",
                            metrics=metrics)
