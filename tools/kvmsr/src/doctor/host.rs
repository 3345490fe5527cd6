// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The CPU and the kernel.

use std::collections::BTreeMap;
use std::fs;

use super::Check;
use super::Topic;
use super::Verdict;
use super::text_of;
use crate::snapshot::Host;

const CPUINFO: &str = "/proc/cpuinfo";

/// The names of the CPU's features in the kernel.
pub fn cpu_flags() -> Vec<String> {
    let cpuinfo = text_of(CPUINFO).unwrap_or_default();

    value(&cpuinfo, "flags")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The value of the first CPU's line with this name.
fn value<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;

        (key.trim() == name).then_some(value.trim())
    })
}

/// The CPU and the kernel. If a VM `works`, another kind of virtualisation is used instead of SVM
/// and VMX.
pub fn checks(host: &Host, works: bool) -> Vec<Check> {
    let flags = cpu_flags();
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    let kernel = Check::new(
        Topic::Machine,
        "kernel",
        Verdict::Note,
        format!("Linux {}", host.kernel),
    );
    let name = if host.cpu.is_empty() {
        "an unknown CPU"
    } else {
        &host.cpu
    };
    let in_vm = has("hypervisor");
    let has_which = match (has("svm"), has("vmx")) {
        (true, _) => "SVM",
        (_, true) => "VMX",
        _ => "neither SVM nor VMX",
    };
    let found = format!(
        "{name}, with {has_which}{}",
        if in_vm { ", in a virtual machine" } else { "" }
    );
    let cpu = match (has("svm") || has("vmx"), works) {
        (true, _) => Check::new(Topic::Machine, "CPU", Verdict::Good, found),
        (false, true) => Check::new(Topic::Machine, "CPU", Verdict::Note, found),
        (false, false) => Check::new(Topic::Machine, "CPU", Verdict::Bad, found).advise(if in_vm {
            "enable nested virtualisation in the hypervisor of this machine \
                 (kvm_amd.nested=1 or kvm_intel.nested=1 there, and a CPU model such as 'host')"
        } else {
            "enable virtualisation (SVM, AMD-V, VT-x) in the firmware"
        }),
    };

    vec![kernel, cpu]
}

/// Details about both.
pub fn details() -> BTreeMap<String, String> {
    let mut details = BTreeMap::new();
    let mut insert = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            details.insert(name.to_owned(), value);
        }
    };

    insert("kernel version", text_of("/proc/sys/kernel/version"));
    insert("CPUs", text_of("/sys/devices/system/cpu/online"));
    insert(
        "tsc",
        text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    );
    insert("lockdown", text_of("/sys/kernel/security/lockdown"));
    insert("CPU flags", Some(cpu_flags().join(" ")));
    insert(
        "distribution",
        text_of("/etc/os-release").and_then(|text| {
            let name = text
                .lines()
                .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;

            Some(name.trim_matches('"').to_owned())
        }),
    );
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = format!("vulnerability {}", entry.file_name().to_string_lossy());

        insert(&name, text_of(entry.path()));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC 7763\n\
                       microcode\t: 0xa0011d1\nflags\t\t: fpu svm\n\nprocessor\t: 1\n";

        assert_eq!(value(cpuinfo, "model name"), Some("AMD EPYC 7763"));
        assert_eq!(value(cpuinfo, "microcode"), Some("0xa0011d1"));
    }
}
