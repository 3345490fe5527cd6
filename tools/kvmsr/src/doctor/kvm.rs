// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM: its device, its modules, and its capabilities.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use kvm_bindings::KVM_CAP_GET_MSR_FEATURES;
use kvm_bindings::KVM_CAP_ONE_REG;
use kvm_bindings::KVM_CAP_X86_MSR_FILTER;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_ioctls::Kvm;

use super::Check;
use super::Topic;
use super::Verdict;
use super::access;
use super::text_of;
use crate::cpuid::Vendor;
use crate::ioctl;
use crate::scratch;
use crate::scratch::Scratch;
use crate::scratch::Setup;
use crate::snapshot::Host;

/// Capabilities that kvmsr and VMMs use: capability, name, first version, what is missing without
/// it.
const CAPABILITIES: [(u32, &str, &str, &str); 4] = [
    (
        KVM_CAP_X86_USER_SPACE_MSR,
        "KVM_CAP_X86_USER_SPACE_MSR",
        "Linux 5.10",
        "probe can't say why KVM refuses a guest's access",
    ),
    (
        KVM_CAP_X86_MSR_FILTER,
        "KVM_CAP_X86_MSR_FILTER",
        "Linux 5.10",
        "there are no MSR filters",
    ),
    (
        KVM_CAP_GET_MSR_FEATURES,
        "KVM_CAP_GET_MSR_FEATURES",
        "Linux 4.17",
        "snapshots lack the host's features",
    ),
    (
        KVM_CAP_ONE_REG,
        "KVM_CAP_ONE_REG",
        "Linux 6.18 on x86",
        "get and set can't use KVM_GET_ONE_REG and KVM_SET_ONE_REG",
    ),
];

/// Everything about KVM except its parameters; and whether a VM works.
pub fn checks(device: &Path, host: &Host) -> (Vec<Check>, bool) {
    let mut checks = Vec::new();
    let works = match scratch::open(device) {
        Err(error) => {
            checks.push(device_check(device, Err(error.to_string())));
            false
        }
        Ok(kvm) => {
            let vm = virtual_machine(&kvm);
            let works = vm.verdict == Verdict::Good;

            checks.push(device_check(device, Ok(())));
            checks.push(vm);
            checks.extend(capabilities(&kvm));
            works
        }
    };

    checks.insert(0, module(host, works));
    checks.push(host_msrs());
    (checks, works)
}

fn module(host: &Host, works: bool) -> Check {
    let name = match host.vendor {
        Some(Vendor::Amd) => "kvm-amd",
        Some(Vendor::Intel) => "kvm-intel",
        None => "kvm-amd or kvm-intel",
    };
    // There may be modules other than KVM's own, e.g. kvm_pvm.
    let loaded: Vec<String> = fs::read_dir("/sys/module")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvm_") && name != "kvm_msr")
        .collect();

    if !loaded.is_empty() {
        let loaded = loaded.join(", ");

        return Check::new(
            Topic::Kvm,
            "module",
            Verdict::Good,
            format!("{loaded} is loaded"),
        );
    }
    let found = "neither kvm-amd nor kvm-intel is loaded";

    if works {
        return Check::new(Topic::Kvm, "module", Verdict::Note, found);
    }
    Check::new(Topic::Kvm, "module", Verdict::Bad, found).advise(format!(
        "modprobe {name}; if this fails, the kernel's log has the reason (dmesg | grep kvm)"
    ))
}

fn device_check(device: &Path, opened: Result<(), String>) -> Check {
    let shown = device.display();
    let name = shown.to_string();
    let metadata = match fs::metadata(device) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::new(Topic::Kvm, &name, Verdict::Bad, "does not exist").advise(
                "load kvm-amd or kvm-intel; in a container, add the device \
                 (--device /dev/kvm)",
            );
        }
        Err(error) => {
            return Check::new(Topic::Kvm, &name, Verdict::Bad, error.to_string())
                .advise("run this as root");
        }
    };
    let who = access::describe(&metadata);

    match opened {
        Ok(()) => Check::new(
            Topic::Kvm,
            &name,
            Verdict::Good,
            format!("{who}, can be opened"),
        ),
        Err(_) if !access::is_root() => Check::new(
            Topic::Kvm,
            &name,
            Verdict::Bad,
            format!("{who}, can't be opened"),
        )
        .advise(match access::group_that_may(&metadata) {
            Some(group) => format!(
                "become a member of the group {group} (usermod -aG {group} USER, and log \
                         in again), or run this as root"
            ),
            None => "run this as root, or give a group access (the udev rule \
                             of distributions: GROUP=\"kvm\", MODE=\"0660\")"
                .to_owned(),
        }),
        Err(error) => Check::new(
            Topic::Kvm,
            &name,
            Verdict::Bad,
            format!("{who}, can't be opened: {error}"),
        )
        .advise("in a container, allow the device (--device /dev/kvm)"),
    }
}

fn capabilities(kvm: &Kvm) -> Vec<Check> {
    CAPABILITIES
        .iter()
        .map(|&(number, name, since, without)| {
            if kvm.check_extension_raw(number.into()) > 0 {
                Check::new(Topic::Kvm, name, Verdict::Good, "is supported")
            } else {
                Check::new(Topic::Kvm, name, Verdict::Lacking, "is missing")
                    .advise(format!("{since} has it; without it, {without}"))
            }
        })
        .collect()
}

/// Whether a VM with a vCPU can be created, and its guest runs.
fn virtual_machine(kvm: &Kvm) -> Check {
    let tried = Scratch::new(kvm, &Setup::default()).and_then(|mut scratch| scratch.run_once());

    match tried {
        Ok(()) => Check::new(
            Topic::Kvm,
            "a VM",
            Verdict::Good,
            "was created, and its guest ran",
        ),
        Err(error) => Check::new(Topic::Kvm, "a VM", Verdict::Bad, error.to_string()).advise(
            "another hypervisor (VirtualBox, VMware) may use the CPU's virtualisation, or the \
             outer one may support it only in part; see the kernel's log",
        ),
    }
}

fn host_msrs() -> Check {
    let path = Path::new("/dev/cpu/0/msr");

    match fs::File::open(path) {
        Ok(_) => Check::new(
            Topic::Kvm,
            "/dev/cpu/*/msr",
            Verdict::Note,
            "can be read: rdmsr shows the host's own MSRs",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::new(
            Topic::Kvm,
            "/dev/cpu/*/msr",
            Verdict::Note,
            "does not exist: modprobe msr, to see the host's own MSRs; kvmsr does not need it",
        ),
        Err(error) => Check::new(
            Topic::Kvm,
            "/dev/cpu/*/msr",
            Verdict::Note,
            format!("can't be read ({error}): only root can; kvmsr does not need it"),
        ),
    }
}

/// Parameters that affect accesses to MSRs.
pub fn parameters() -> Vec<Check> {
    let value = |module: &str, name: &str| {
        text_of(format!("/sys/module/{module}/parameters/{name}"))
            .map(|value| (format!("{module}.{name}"), value))
    };
    let on = |value: &str| !matches!(value, "N" | "0" | "");
    let mut checks = Vec::new();
    let mut look = |module: &str, name: &str, odd: bool, meaning: [&str; 2]| {
        if let Some((name, value)) = value(module, name) {
            let is_on = on(&value);
            let verdict = if is_on == odd {
                Verdict::Note
            } else {
                Verdict::Good
            };
            let [off, on] = meaning;
            let meaning = if is_on { on } else { off };

            checks.push(Check::new(
                Topic::Parameters,
                &name,
                verdict,
                format!("{value}: {meaning}"),
            ));
        }
    };

    look(
        "kvm",
        "ignore_msrs",
        true,
        [
            "an access to an unknown MSR injects #GP",
            "unknown MSRs read as 0 and ignore writes, so check and probe find almost no \
             refusals",
        ],
    );
    look(
        "kvm",
        "report_ignored_msrs",
        false,
        [
            "ignored accesses are not logged",
            "accesses to unknown MSRs are logged if ignore_msrs is set",
        ],
    );
    look(
        "kvm",
        "force_emulation_prefix",
        true,
        [
            "guests can't request KVM's emulator",
            "guests can have KVM's emulator execute an instruction; for tests",
        ],
    );
    look(
        "kvm",
        "enable_vmware_backdoor",
        true,
        [
            "no backdoor",
            "#GP is intercepted for VMware's backdoor, which takes time",
        ],
    );
    look(
        "kvm",
        "enable_pmu",
        false,
        [
            "guests have no performance counters",
            "guests have performance counters if their CPUID says so",
        ],
    );
    let nesting = [
        "guests can't run VMs, and lack the MSRs for that",
        "guests can run VMs",
    ];

    for module in ["kvm_amd", "kvm_intel"] {
        look(module, "nested", false, nesting);
    }
    checks
}

/// The sizes of the lists.
pub fn details(device: &Path) -> BTreeMap<String, String> {
    let mut details = BTreeMap::new();
    let Ok(kvm) = scratch::open(device) else {
        return details;
    };
    let mut insert = |name: &str, value: String| {
        details.insert(name.to_owned(), value);
    };
    let count = |list: Result<kvm_bindings::MsrList, _>| match list {
        Ok(list) => list.as_slice().len().to_string(),
        Err(error) => {
            let error: vmm_sys_util::errno::Error = error;

            error.to_string()
        }
    };

    insert(
        "KVM_GET_MSR_INDEX_LIST, MSRs",
        count(kvm.get_msr_index_list()),
    );
    insert(
        "KVM_GET_MSR_FEATURE_INDEX_LIST, MSRs",
        count(kvm.get_msr_feature_index_list()),
    );
    if let Ok(scratch) = Scratch::new(&kvm, &Setup::default()) {
        insert(
            "KVM_GET_REG_LIST, registers",
            match ioctl::one_reg_list(scratch.vcpu()) {
                Ok(list) => list.len().to_string(),
                Err(error) => error.to_string(),
            },
        );
    }
    insert(
        "KVM_CAP_X86_USER_SPACE_MSR",
        format!(
            "{:#x}",
            kvm.check_extension_raw(KVM_CAP_X86_USER_SPACE_MSR.into())
        ),
    );
    details
}
