// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Describes this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::cpuid::Vendor;
use crate::snapshot::Host;

const MODULES: [&str; 4] = ["kvm", "kvm_amd", "kvm_intel", "kvm_msr"];

impl Host {
    /// This machine, as far as known.
    pub fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();

        Host {
            kernel: trimmed(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default(),
            parameters: MODULES
                .iter()
                .map(|module| (module.to_string(), parameters(module)))
                .filter(|(_, parameters)| !parameters.is_empty())
                .collect(),
            engine: trimmed(Path::new("/sys/module/kvm_msr/parameters/enable"))
                .is_some_and(|enabled| enabled == "Y"),
            ..of_cpuinfo(&cpuinfo)
        }
    }
}

/// The first CPU in `/proc/cpuinfo`.
fn of_cpuinfo(cpuinfo: &str) -> Host {
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim().to_owned())
    };

    Host {
        vendor: field("vendor_id").and_then(|name| Vendor::of_name(&name)),
        cpu: field("model name").unwrap_or_default(),
        microcode: field("microcode"),
        ..Host::default()
    }
}

/// The readable parameters of a module.
fn parameters(module: &str) -> BTreeMap<String, String> {
    let Ok(files) = fs::read_dir(format!("/sys/module/{module}/parameters")) else {
        return BTreeMap::new();
    };

    files
        .filter_map(|file| {
            let file = file.ok()?;

            Some((file.file_name().into_string().ok()?, trimmed(&file.path())?))
        })
        .collect()
}

fn trimmed(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cpu_is_taken() {
        let host = of_cpuinfo(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC\nmicrocode\t: 0x123\n\
             \nprocessor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\n",
        );

        assert_eq!(host.vendor, Some(Vendor::Amd));
        assert_eq!(host.cpu, "EPYC");
        assert_eq!(host.microcode.as_deref(), Some("0x123"));
        assert_eq!(of_cpuinfo(""), Host::default());
    }
}
