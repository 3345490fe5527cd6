// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The requirements of `top` and `log`.

use std::fs;
use std::io;
use std::path::Path;

use super::Check;
use super::Topic;
use super::Verdict;
use crate::trace::INSTANCE_PREFIX;
use crate::trace::Tracefs;

/// tracefs, its ways to count, and debugfs.
pub fn checks(given: Option<&Path>) -> Vec<Check> {
    let mut checks = Vec::new();

    match Tracefs::find(given) {
        Ok(tracefs) => {
            checks.push(Check::new(
                Topic::Tracing,
                "kvm:kvm_msr",
                Verdict::Good,
                format!("can be traced, in {}", tracefs.directory().display()),
            ));
            checks.push(histograms(&tracefs));
            checks.extend(left_over(&tracefs));
        }
        Err(error) => checks.push(
            Check::new(
                Topic::Tracing,
                "kvm:kvm_msr",
                Verdict::Lacking,
                "can't be traced, which top and log need",
            )
            .advise(error.to_string()),
        ),
    }
    checks.push(debugfs());
    checks
}

fn histograms(tracefs: &Tracefs) -> Check {
    if tracefs.has_histograms() {
        Check::new(
            Topic::Tracing,
            "histograms",
            Verdict::Good,
            "the kernel counts, and top loses no event",
        )
    } else {
        Check::new(
            Topic::Tracing,
            "histograms",
            Verdict::Lacking,
            "this kernel lacks them, so top reads each event and may lose some",
        )
        .advise("use a kernel with CONFIG_HIST_TRIGGERS")
    }
}

/// Instances of runs that were killed. The next run removes them.
fn left_over(tracefs: &Tracefs) -> Option<Check> {
    let instances = tracefs.directory().join("instances");
    let dead: Vec<String> = fs::read_dir(instances)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            name.strip_prefix(INSTANCE_PREFIX)
                .and_then(|rest| rest.split('-').next())
                .is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        })
        .collect();

    (!dead.is_empty()).then(|| {
        Check::new(
            Topic::Tracing,
            "instances",
            Verdict::Note,
            format!(
                "left over from runs that were killed, until the next run of top: {}",
                dead.join(", ")
            ),
        )
    })
}

fn debugfs() -> Check {
    const NAME: &str = "debugfs";
    const USE: &str = "top can't distinguish VMs of one process, nor show kvm-msr.ko's counters";

    match fs::read_dir("/sys/kernel/debug/kvm") {
        Ok(_) => Check::new(
            Topic::Tracing,
            NAME,
            Verdict::Good,
            "KVM's folders can be read",
        ),
        Err(error) => Check::new(
            Topic::Tracing,
            NAME,
            Verdict::Lacking,
            format!("/sys/kernel/debug/kvm: {error}"),
        )
        .advise(match error.kind() {
            io::ErrorKind::PermissionDenied => format!("run this as root; without it, {USE}"),
            _ => format!(
                "mount -t debugfs debugfs /sys/kernel/debug, and load KVM; without it, {USE}"
            ),
        }),
    }
}
