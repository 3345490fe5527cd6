// SPDX-License-Identifier: Apache-2.0 OR MIT

//! kvm-msr.ko, which serves the MSRs of VMs from Rust.

use std::path::Path;

use super::Check;
use super::Topic;
use super::Verdict;
use super::text_of;

const MODULE: &str = "/sys/module/kvm_msr";
/// What a kernel has that was made for it.
const HOOK: &str = "kvm_msr_engine_register";

/// Whether VMs that are created from now on are served by it.
pub fn is_enabled() -> bool {
    text_of(Path::new(MODULE).join("parameters/enable")).is_some_and(|value| value == "Y")
}

/// The module, and whether the kernel takes it. It is nothing that anything needs.
pub fn checks() -> Vec<Check> {
    let name = "kvm-msr.ko";

    if Path::new(MODULE).exists() {
        let version = ["version", "srcversion"]
            .iter()
            .find_map(|file| text_of(Path::new(MODULE).join(file)))
            .map_or_else(String::new, |version| format!(", version {version}"));
        let enabled = if is_enabled() {
            "it serves VMs that are created from now on"
        } else {
            "its parameter enable is N, so that C serves VMs that are created from now on"
        };

        return vec![Check::new(
            Topic::Engine,
            name,
            Verdict::Good,
            format!("is loaded{version}; {enabled}"),
        )];
    }
    let found = match has_hooks() {
        Some(true) => "is not loaded; this kernel takes it (modprobe kvm-msr)",
        Some(false) => "is not loaded, and this kernel (or the KVM loaded) is not made for it",
        None => "is not loaded",
    };

    vec![Check::new(Topic::Engine, name, Verdict::Note, found)]
}

/// Whether KVM has the hooks that the module needs; none if the kernel does not tell, or KVM is
/// not loaded.
fn has_hooks() -> Option<bool> {
    use std::io::BufRead;

    let symbols = std::io::BufReader::new(std::fs::File::open("/proc/kallsyms").ok()?);
    let mut kvm = false;

    // The symbols of modules come last.
    for line in symbols.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let name = line.split_whitespace().nth(2).unwrap_or_default();

        if name == HOOK {
            return Some(true);
        }
        kvm |= name == "kvm_init" || name == "kvm_vcpu_ioctl";
    }
    kvm.then_some(false)
}
