// SPDX-License-Identifier: Apache-2.0 OR MIT

//! kvm-msr.ko, the MSR engine in Rust.

use std::path::Path;

use super::Check;
use super::Topic;
use super::Verdict;
use super::device;
use super::text_of;
use crate::device::MODULE;

/// A symbol of kernels with the engine's hooks.
const HOOK: &str = "kvm_msr_engine_register";

/// Whether the engine serves new VMs.
pub fn is_enabled() -> bool {
    text_of(Path::new(MODULE).join("parameters/enable")).is_some_and(|value| value == "Y")
}

/// The module with its device, or whether the kernel supports it. Nothing requires it.
pub fn checks() -> Vec<Check> {
    let name = "kvm-msr.ko";

    if Path::new(MODULE).exists() {
        let version = ["version", "srcversion"]
            .iter()
            .find_map(|file| text_of(Path::new(MODULE).join(file)))
            .map_or_else(String::new, |version| format!(", version {version}"));
        let enabled = if is_enabled() {
            "it serves new VMs"
        } else {
            "its parameter enable is N, so C serves new VMs"
        };

        let module = Check::new(
            Topic::Engine,
            name,
            Verdict::Good,
            format!("is loaded{version}; {enabled}"),
        );

        return vec![module, device::check()];
    }
    let found = match has_hooks() {
        Some(true) => "is not loaded; this kernel supports it (modprobe kvm-msr)",
        Some(false) => "is not loaded; this kernel (or the loaded KVM) lacks its hooks",
        None => "is not loaded",
    };

    vec![Check::new(Topic::Engine, name, Verdict::Note, found)]
}

/// Whether KVM has the hooks for the module; none if the kernel does not show its symbols, or KVM
/// is not loaded.
fn has_hooks() -> Option<bool> {
    use std::io::BufRead;

    let symbols = std::io::BufReader::new(std::fs::File::open("/proc/kallsyms").ok()?);
    let mut kvm = false;

    // The symbols of modules are at the end.
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
