// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests `compat` and `diff`: plain ioctls restore profiles of this host and of others, and `diff`
//! must find exactly the differences that were added.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::CpuId;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Random;
use kvmsr::number::Hex;
use kvmsr::snapshot::Snapshot;
use serde_json::Value;

use crate::report::Report;
use crate::run::Kvmsr;

/// Number of artificial hosts, each with fewer features than this one.
const VARIANTS: u64 = 24;
/// Number of differences that are added.
const PLANTED: usize = 40;

/// Runs the tests.
pub fn run(kvmsr: &Kvmsr, report: &mut Report) {
    let files = match Files::new(kvmsr) {
        Ok(files) => files,
        Err(error) => return report.test("a snapshot of this host", || Err(error)),
    };

    report.test("compat: this host's profile", || {
        let profile = files.compat(&[&files.host])?;

        files.takes(&profile)
    });
    for name in ["snapshot-amd.json", "snapshot-intel.json"] {
        report.test(&format!("compat: with {name}"), || {
            let profile = files.compat(&[&files.host, &kvmsr.file(name)])?;

            files.takes(&profile)
        });
    }
    report.test("compat: with hosts that lack something", || {
        files.variants()
    });
    for format in [
        "firecracker",
        "firecracker-fingerprint",
        "cloud-hypervisor",
        "cloud-hypervisor-cpuid",
    ] {
        report.test(&format!("compat: {format} of this host"), || {
            files.round_trip(format)
        });
    }
    report.test("diff: a host and its file are the same", || {
        let host = path(&files.host)?;
        let said = kvmsr.json(&["diff", host, "--host"], "", &[0, 1])?;

        ensure!(said["equal"] == true, "they differ: {said}");
        Ok(format!("{} MSRs change by themselves", said["moving"]))
    });
    report.test("diff: added differences are found", || files.planted());
    let documents = [
        ("diff", &["diff", "--ignore", "host"][..]),
        ("compat", &["compat"]),
    ];

    for (schema, arguments) in documents {
        let mut document = None;

        report.test(&format!("{schema} prints JSON"), || {
            let host = path(&files.host)?;
            let other = kvmsr.file("host-new.json");
            let all = [arguments, &[host, path(&other)?]].concat();

            document = Some(kvmsr.json(&all, "", &[0, 1])?.to_string());
            Ok(String::new())
        });
        if let Some(document) = document {
            report.document(schema, &document);
        }
    }
}

/// Files of this machine.
struct Files<'a> {
    kvmsr: &'a Kvmsr,
    kvm: Kvm,
    directory: PathBuf,
    host: PathBuf,
    snapshot: Snapshot,
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not text")
}

impl<'a> Files<'a> {
    fn new(kvmsr: &'a Kvmsr) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(format!("kvmsr-check-{}", std::process::id()));
        let host = directory.join("host.json");

        fs::create_dir_all(&directory)?;
        let said = kvmsr.run(&["snapshot", "-o", path(&host)?], "")?;

        ensure!(said.code == 0, "{}", said.stderr);
        Ok(Files {
            kvmsr,
            kvm: Kvm::new()?,
            snapshot: serde_json::from_slice(&fs::read(&host)?)?,
            directory,
            host,
        })
    }

    /// The profile of files.
    fn compat(&self, files: &[&Path]) -> anyhow::Result<PathBuf> {
        let profile = self.directory.join("profile.json");
        let mut arguments = vec!["compat", "-o", path(&profile)?];

        for file in files {
            arguments.push(path(file)?);
        }
        let said = self.kvmsr.run(&arguments, "")?;

        ensure!(said.code == 0, "compat: {}", said.stderr);
        Ok(profile)
    }

    /// Tests that `check` finds nothing, and that plain ioctls accept the profile.
    fn takes(&self, profile: &Path) -> anyhow::Result<String> {
        let said = self.kvmsr.json(&["check", path(profile)?], "", &[0, 1])?;

        ensure!(
            said["refused"] == 0 && said["changed"] == 0,
            "check finds: {}",
            bad(&said)
        );
        let profile: Snapshot = serde_json::from_slice(&fs::read(profile)?)?;
        let refused = self.refused(&profile)?;

        ensure!(!profile.msrs.is_empty(), "the profile is empty");
        ensure!(refused.is_empty(), "KVM_SET_MSRS refuses {refused:x?}");
        Ok(format!("{} MSRs", profile.msrs.len()))
    }

    /// The MSRs of a profile that KVM refuses on a new vCPU with its CPUID, one by one.
    fn refused(&self, profile: &Snapshot) -> anyhow::Result<Vec<u32>> {
        let vm = self.kvm.create_vm()?;

        vm.create_irq_chip()?;
        let vcpu = vm.create_vcpu(0)?;
        let leaves: Vec<kvm_cpuid_entry2> = profile.cpuid.0.iter().map(Into::into).collect();

        vcpu.set_cpuid2(&CpuId::from_entries(&leaves)?)?;
        let mut refused = Vec::new();

        for msr in &profile.msrs {
            let entry = kvm_msr_entry {
                index: msr.index.0,
                data: msr.value.0,
                ..Default::default()
            };

            ensure!(msr.mask.is_none(), "{} has a mask", msr.index);
            if vcpu.set_msrs(&Msrs::from_entries(&[entry])?)? != 1 {
                refused.push(msr.index.0);
            }
        }
        Ok(refused)
    }

    /// Hosts with fewer features than this one, alone and together.
    fn variants(&self) -> anyhow::Result<String> {
        let mut random = Random::new(9);
        let mut all = Vec::new();

        for seed in 0..VARIANTS {
            let file = self.directory.join(format!("variant-{seed}.json"));
            let variant = variant(&self.snapshot, &mut random);

            fs::write(&file, serde_json::to_vec(&variant)?)?;
            let profile = self.compat(&[&self.host, &file])?;

            self.takes(&profile)
                .with_context(|| format!("variant {seed}"))?;
            is_no_more(&serde_json::from_slice(&fs::read(&profile)?)?, &variant)
                .with_context(|| format!("variant {seed}"))?;
            all.push(file);
        }
        let mut together: Vec<&Path> = vec![&self.host];

        together.extend(all.iter().map(PathBuf::as_path));
        let profile = self.compat(&together)?;
        let msrs = self.takes(&profile)?;

        Ok(format!("{VARIANTS} of them; all together {msrs}"))
    }

    /// The host's snapshot in another format, which has the same content and passes `check`.
    fn round_trip(&self, format: &str) -> anyhow::Result<String> {
        let file = self.directory.join(format);
        let host = path(&self.host)?;
        let said = self.kvmsr.run(
            &["compat", host, "--format", format, "-o", path(&file)?],
            "",
        )?;

        ensure!(said.code == 0, "{}", said.stderr);
        let said = self.kvmsr.json(&["check", path(&file)?], "", &[0, 1])?;

        ensure!(
            said["refused"] == 0 && said["changed"] == 0,
            "check finds: {}",
            bad(&said)
        );
        let again = self.compat(&[&file])?;
        let again: Snapshot = serde_json::from_slice(&fs::read(again)?)?;

        for msr in &again.msrs {
            let of_host = self.snapshot.msrs.iter().find(|of| of.index == msr.index);

            ensure!(
                of_host.is_some_and(|of_host| of_host.value == msr.value),
                "{} has become {}",
                msr.index,
                msr.value
            );
        }
        if format.starts_with("firecracker") {
            for msr in &self.snapshot.msrs {
                let expected = self.snapshot.saved.contains(&msr.index)
                    && !msr.moves
                    && !no_template_has(msr.index.0);

                ensure!(
                    again.msrs.iter().any(|of| of.index == msr.index) == expected,
                    "{} is {} a template",
                    msr.index,
                    if expected { "missing from" } else { "in" }
                );
            }
            ensure!(again.cpuid == self.snapshot.cpuid, "CPUID has changed");
        }
        Ok(format!("{} MSRs", again.msrs.len()))
    }

    /// Differences of one bit, in MSRs that do not change by themselves.
    fn planted(&self) -> anyhow::Result<String> {
        let mut random = Random::new(10);
        let mut other = self.snapshot.clone();
        let mut planted = BTreeSet::new();
        let file = self.directory.join("planted.json");

        while planted.len() < PLANTED {
            let number = random.below(u32::try_from(other.msrs.len())?) as usize;
            let msr = &mut other.msrs[number];

            if !msr.moves && !planted.iter().any(|&(index, _)| index == msr.index.0) {
                let bit = random.below(64);

                msr.value.0 ^= 1 << bit;
                planted.insert((msr.index.0, bit));
            }
        }
        fs::write(&file, serde_json::to_vec(&other)?)?;
        let said = self
            .kvmsr
            .json(&["diff", path(&self.host)?, path(&file)?], "", &[1])?;
        let mut found = BTreeSet::new();

        for msr in said["msrs"].as_array().context("no MSRs")? {
            let number = |name: &str| -> anyhow::Result<u64> {
                let text = msr[name].as_str().with_context(|| format!("no {name}"))?;

                Ok(kvmsr::number::parse_u64(text)?)
            };
            let differing = number("a")? ^ number("b")?;
            let fields = msr["fields"].as_array().context("no fields")?;

            ensure!(differing.is_power_of_two(), "{msr}");
            // A field and its parts only.
            for field in fields {
                let bits = field["bits"].as_str().context("no bits")?;
                let bits: kvmsr::number::Bits = bits.parse()?;

                ensure!(bits.mask() & differing != 0, "{msr}");
            }
            ensure!(!fields.is_empty(), "{msr}");
            found.insert((u32::try_from(number("index")?)?, differing.trailing_zeros()));
        }
        for part in ["host", "cpuid", "features"] {
            ensure!(said[part] == Value::Array(Vec::new()), "{}", said[part]);
        }
        if found != planted {
            bail!("added {planted:x?}, found {found:x?}");
        }
        Ok(format!("{PLANTED} of {PLANTED}"))
    }
}

/// Whether Firecracker's own tool leaves out a listed MSR that does not change by itself: the
/// state of machine checks and of the timer, IA32_PERF_CAPABILITIES, PEBS, and AMD's
/// IA32_ARCH_CAPABILITIES and counters.
fn no_template_has(index: u32) -> bool {
    match index {
        0x17a | 0x345 | 0x3f1 | 0x3f2 | 0x4d0 | 0x600 | 0x6e0 => true,
        0x10a | 0xc001_0000..=0xc001_0007 | 0xc001_0200..=0xc001_020b => {
            std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("AuthenticAMD"))
        }
        _ => false,
    }
}

/// The problems that `check` found.
fn bad(said: &Value) -> String {
    let entries = said["msrs"].as_array().into_iter().flatten();
    let bad: Vec<String> = entries
        .filter(|entry| entry["verdict"] != "fine")
        .take(5)
        .map(Value::to_string)
        .collect();

    bad.join(", ")
}

/// Bits of capability MSRs and CPUID leaves that another host may lack, for the variants. The low
/// halves of VMX's controls are requirements.
fn droppable(index: u32) -> u64 {
    match index {
        // VMX_BASIC's INS/OUTS and TRUE_CTLS, VMX_MISC's activity states, etc.
        0x480 => 1 << 54,
        0x485 => 0x1e0 | 0x7000_4000 | 1 << 15,
        0x48b | 0x48d..=0x490 => 0xffff_ffff << 32,
        0x48c | 0x491 | 0xc001_1029 | 0x10a | 0x345 => u64::MAX,
        0xce => 1 << 31,
        _ => 0,
    }
}

/// A host that lacks features of this one: bits of CPUID, bits of capabilities, whole MSRs.
fn variant(host: &Snapshot, random: &mut Random) -> Snapshot {
    let mut variant = host.clone();
    // Some lack few features, some many.
    let density = [2, 8, 64][random.below(3) as usize];
    let mut loses = |mask: u64| {
        (0..64)
            .map(|bit| 1 << bit)
            .filter(|bit| mask & bit != 0 && random.below(density) == 0)
            .fold(0, |lost, bit: u64| lost | bit)
    };

    for leaf in &mut variant.cpuid.0 {
        let registers: &mut [&mut Hex<u32>] = match (leaf.function.0, leaf.index.0) {
            (1 | 0x8000_0001, _) => &mut [&mut leaf.ecx, &mut leaf.edx],
            (7, 0) => &mut [&mut leaf.ebx, &mut leaf.ecx, &mut leaf.edx],
            (7, _) | (0xd, 1) | (0x4000_0001, _) => &mut [&mut leaf.eax],
            (0x8000_0008, _) => &mut [&mut leaf.ebx],
            (0x8000_0007 | 0x8000_000a, _) => &mut [&mut leaf.edx],
            _ => &mut [],
        };

        for register in registers {
            register.0 &= !(loses(u64::from(u32::MAX)) as u32);
        }
    }
    for feature in &mut variant.features {
        let lost = loses(droppable(feature.index.0));

        feature.value.0 &= !lost;
        for msr in &mut variant.msrs {
            if msr.index == feature.index {
                msr.value.0 &= !lost;
            }
        }
    }
    let gone: BTreeSet<Hex<u32>> = variant
        .msrs
        .iter()
        .map(|msr| msr.index)
        .filter(|_| loses(1) != 0 && density > 2)
        .collect();

    variant.msrs.retain(|msr| !gone.contains(&msr.index));
    variant.saved.retain(|index| !gone.contains(index));
    variant.host.kernel = "another".to_owned();
    variant
}

/// Tests that the profile has no features that the host lacks.
fn is_no_more(profile: &Snapshot, host: &Snapshot) -> anyhow::Result<()> {
    for msr in &profile.msrs {
        let of_host = host
            .msrs
            .iter()
            .find(|of_host| of_host.index == msr.index)
            .with_context(|| format!("{} is not there", msr.index))?;
        let more = msr.value.0 & !of_host.value.0 & droppable(msr.index.0);
        // RSBA and RRSBA are weaknesses.
        let bad_news = if msr.index.0 == 0x10a {
            1 << 2 | 1 << 19
        } else {
            0
        };

        ensure!(more & !bad_news == 0, "{} has {more:#x}", msr.index);
    }
    for index in &profile.saved {
        ensure!(host.saved.contains(index), "{index} is not listed");
    }
    Ok(())
}
