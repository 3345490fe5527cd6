// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The accesses, and the comparison of their results.

use std::fmt::Debug;
use std::ops::Range;

use anyhow::Result;
use kvm_bindings::KVM_MSR_EXIT_REASON_INVAL;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Random;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;

use crate::TOLD;

/// Index ranges in which there are MSRs.
const INHABITED: [Range<u32>; 5] = [
    0..0x2000,
    0x4000_0000..0x4000_1100,
    0x4b56_4d00..0x4b56_4e00,
    0xc000_0000..0xc000_2000,
    0xc001_0000..0xc001_2000,
];

/// The number of random indices in addition.
const ANYWHERE: usize = 2000;

/// KVM_X86_REG_MSR(0).
const ONE_REG_MSR: u64 = 0x2030_0002_0000_0000;

/// MSRs whose values depend on time, and why. Only whether they can be accessed is compared.
const BY_TIME: &[(u32, &str)] = &[
    (0x10, "the TSC advances"),
    (0x3b, "its change by a write of the TSC depends on the time"),
    (0xe7, "MPERF advances"),
    (0xe8, "APERF advances"),
    (0x4000_0010, "the time that the vCPU ran"),
    (0x4000_0020, "the time since the VM was created"),
];

/// Special values, for MSRs that are known.
const EDGES: [u64; 12] = [
    0,
    u64::MAX,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0x00ff_ffff_ffff_ffff,
    0x0100_0000_0000_0000,
    0xff00_0000_0000_0000,
    0x0007_0406_0007_0406,
    0xffff_ffff,
    0xffff_ffff_ffff_fffe,
];

/// MSRs that decide the valid values of others, with values that change this.
const GOVERNING: [(u32, u64); 9] = [
    // PLATFORM_INFO, without CPUID faulting and with it.
    (0xce, 0),
    (0xce, 1 << 31),
    // IA32_APIC_BASE: x2APIC, which needs an irqchip.
    (0x1b, 0xfee0_0d00),
    // IA32_ARCH_CAPABILITIES, IA32_PERF_CAPABILITIES, IA32_MISC_ENABLE: 0.
    (0x10a, 0),
    (0x345, 0),
    (0x1a0, 0),
    // IA32_MCG_CTL: all banks.
    (0x17b, u64::MAX),
    // EFER: SCE, LME and NXE.
    (0xc000_0080, 0x901),
    // HWCR: McStatusWrEn.
    (0xc001_0015, 1 << 18),
];

/// Two guests with the same setup: C serves one and the engine the other, except for a trace.
pub struct Pair(pub [Guest; 2]);

impl Pair {
    fn new(kvm: &Kvm, engines: [Engine; 2], cpuid: Cpuid, irqchip: bool) -> Result<Self> {
        let guest = |engine| {
            Guest::new(
                kvm,
                Options {
                    engine,
                    irqchip,
                    cpuid,
                },
            )
        };
        Ok(Pair([guest(engines[0])?, guest(engines[1])?]))
    }

    /// The same, with a vCPU that has run.
    fn after_run(kvm: &Kvm, engines: [Engine; 2], cpuid: Cpuid, irqchip: bool) -> Result<Self> {
        let mut pair = Self::new(kvm, engines, cpuid, irqchip)?;

        pair.run()?;
        Ok(pair)
    }

    /// Runs the vCPUs.
    pub fn run(&mut self) -> Result<()> {
        for guest in &mut self.0 {
            guest.rdmsr(0x277)?;
        }
        Ok(())
    }

    /// Makes the same access to both guests.
    pub fn both<T>(&mut self, mut access: impl FnMut(&mut Guest) -> T) -> [T; 2] {
        let [c, engine] = &mut self.0;

        [access(c), access(engine)]
    }
}

/// The comparison, and its results so far.
pub struct Sweep<'a> {
    kvm: &'a Kvm,
    /// The engines of the two guests.
    pub engines: [Engine; 2],
    quick: bool,
    /// The source of random values.
    pub random: Random,
    context: String,
    /// Number of observations that were compared.
    pub cases: u64,
    /// Number of observations that were not equal.
    pub differences: u64,
    /// The first differences, as text.
    pub first: Vec<String>,
}

impl<'a> Sweep<'a> {
    /// A new comparison.
    pub fn new(kvm: &'a Kvm, engines: [Engine; 2], quick: bool, seed: u64) -> Self {
        Sweep {
            kvm,
            engines,
            quick,
            random: Random::new(seed),
            context: String::new(),
            cases: 0,
            differences: 0,
            first: Vec::new(),
        }
    }

    /// The device.
    pub fn kvm(&self) -> &'a Kvm {
        self.kvm
    }

    /// Two new guests; with `ran`, their vCPUs have run.
    pub fn pair(&self, cpuid: Cpuid, irqchip: bool, ran: bool) -> Result<Pair> {
        if ran {
            Pair::after_run(self.kvm, self.engines, cpuid, irqchip)
        } else {
            Pair::new(self.kvm, self.engines, cpuid, irqchip)
        }
    }

    /// Sets the text that precedes the description of a difference.
    pub fn set_context(&mut self, context: String) {
        self.context = context;
    }

    /// Compares one observation.
    pub fn compare<T: PartialEq + Debug + ?Sized>(&mut self, access: &str, c: &T, engine: &T) {
        self.cases += 1;
        if c != engine {
            self.differences += 1;
            if self.first.len() < TOLD {
                self.first.push(format!(
                    "{}{access}: C {c:x?}, engine {engine:x?}",
                    self.context
                ));
            }
        }
    }

    /// Compares one observation. The description is made only if it differs.
    pub fn same<T: PartialEq + Debug>(&mut self, access: impl FnOnce() -> String, seen: [T; 2]) {
        let [c, engine] = seen;

        if c == engine {
            self.cases += 1;
        } else {
            self.compare(&access(), &c, &engine);
        }
    }

    /// Feature MSRs of the device, and some other MSRs.
    pub fn features(&mut self, listed: &[u32]) -> Result<()> {
        let others = [
            0,
            0x10,
            0x277,
            0x345,
            0x480,
            0x4ff,
            0xc000_0080,
            0xdead_beef,
        ];

        for &index in listed.iter().chain(&others) {
            let mut seen = Vec::new();
            for engine in self.engines {
                crate::enable(engine)?;
                let mut list = kvm_bindings::Msrs::from_entries(&[kvm_bindings::kvm_msr_entry {
                    index,
                    data: 0x55,
                    ..Default::default()
                }])?;
                let done = self.kvm.get_msrs(&mut list);
                seen.push((done.map_err(|error| error.errno()), list.as_slice()[0].data));
            }
            self.compare(&format!("feature MSR {index:#x}"), &seen[0], &seen[1]);
        }
        Ok(())
    }

    fn indices(&mut self) -> Vec<u32> {
        let step = if self.quick { 17 } else { 1 };
        let mut indices: Vec<u32> = INHABITED
            .into_iter()
            .flat_map(|range| range.step_by(step))
            .collect();
        let anywhere = ANYWHERE / step;

        indices.extend((0..anywhere).map(|_| self.random.next() as u32));
        indices
    }

    /// All accesses with one CPUID.
    pub fn model(&mut self, cpuid: Cpuid, with_irqchip: bool) -> Result<()> {
        let (known, unknown) = self.classify(cpuid)?;
        println!(
            "CPUID {cpuid:?}: {} MSRs are known, {} are tried",
            known.len(),
            unknown.len()
        );

        self.context = format!("CPUID {cpuid:?}, ");
        self.ids(cpuid)?;
        for irqchip in [false, true] {
            if irqchip && !with_irqchip {
                continue;
            }
            self.governed(cpuid, irqchip, &known)?;
            for ran in [false, true] {
                self.unknown(cpuid, irqchip, ran, &unknown)?;
                for &index in &known {
                    self.known(cpuid, irqchip, ran, index)?;
                }
                println!("  {} cases, {} differences", self.cases, self.differences);
            }
        }
        Ok(())
    }

    /// Register IDs that are not an MSR's, some by one bit.
    fn ids(&mut self, cpuid: Cpuid) -> Result<()> {
        const GUEST_SSP: u64 = 0x2030_0003_0000_0000;
        const PAT: u64 = ONE_REG_MSR | 0x277;
        const NOBODY: u64 = ONE_REG_MSR | 0xc000_1fff;
        let mut pair = Pair::new(self.kvm, self.engines, cpuid, false)?;
        let mut ids = vec![0, u64::MAX, 0x2030_0002_4b56_4dff];

        for id in [PAT, NOBODY, GUEST_SSP] {
            ids.push(id);
            // The fields of an ID: type, reserved bits, size and architecture.
            ids.extend((32..64).map(|bit| id ^ 1 << bit));
            ids.extend((0..16).map(|size| id & !(0xf << 52) | size << 52));
            ids.extend((0..=0xff).map(|kind| id & !(0xff << 32) | kind << 32));
        }
        for id in ids {
            let get = pair.both(|guest| ioctl::get_one_reg(guest.vcpu(), id));
            self.same(|| format!("get one reg {id:#x}"), get);
            let set = pair.both(|guest| ioctl::set_one_reg(guest.vcpu(), id, 6));
            self.same(|| format!("set one reg {id:#x}"), set);
        }
        Ok(())
    }

    /// Splits the indices into MSRs that C knows and MSRs that it does not know.
    fn classify(&mut self, cpuid: Cpuid) -> Result<(Vec<u32>, Vec<u32>)> {
        let guest = Guest::new(
            self.kvm,
            Options {
                cpuid,
                ..Options::new(self.engines[0])
            },
        )?;
        let mut known = Vec::new();

        for index in INHABITED.into_iter().flatten() {
            let vcpu = guest.vcpu();
            if msrs::get(vcpu, index)?.is_some() || msrs::set(vcpu, index, 0)? {
                known.push(index);
            }
        }
        // Ranges with many similar MSRs: local APIC, machine checks, MTRRs.
        let alike = [0x800..0x900, 0x400..0x480, 0x280..0x2a0, 0x200..0x270];
        if self.quick {
            known
                .retain(|index| index % 16 < 5 || !alike.iter().any(|range| range.contains(index)));
        }
        let unknown = self
            .indices()
            .into_iter()
            .filter(|index| known.binary_search(index).is_err())
            .collect();
        Ok((known, unknown))
    }

    /// Accesses to unknown MSRs. They change nothing, so guests are reused.
    fn unknown(&mut self, cpuid: Cpuid, irqchip: bool, ran: bool, indices: &[u32]) -> Result<()> {
        let mut pair = self.pair(cpuid, irqchip, ran)?;

        for &index in indices {
            let random = self.random.next();

            self.host(&mut pair, index, &[0, u64::MAX, random])?;
            if ran && !irqchip {
                // The guest is much slower than ioctls, and all unknown MSRs behave alike.
                if self.quick || random % 8 == 0 {
                    self.guest(&mut pair, index, &[0, random])?;
                } else {
                    self.rdmsr(&mut pair, index);
                    self.wrmsr(&mut pair, index, random);
                }
            }
        }
        Ok(())
    }

    /// Accesses to a known MSR, on new guests.
    fn known(&mut self, cpuid: Cpuid, irqchip: bool, ran: bool, index: u32) -> Result<()> {
        let mut values = EDGES.to_vec();

        values.extend([self.random.next(), self.random.next()]);
        values.extend((0..64).map(|bit| 1 << bit));
        let mut host = self.pair(cpuid, irqchip, ran)?;
        let mut guest = self.pair(cpuid, irqchip, ran)?;
        self.host(&mut host, index, &values)?;
        // With a local APIC in the kernel, a vCPU may wait forever for other vCPUs.
        if ran && !irqchip {
            if self.quick {
                // The guest is much slower than ioctls.
                values.truncate(EDGES.len() + 8);
            }
            self.guest(&mut guest, index, &values)?;
        }
        Ok(())
    }

    /// Accesses to known MSRs after another MSR was written.
    fn governed(&mut self, cpuid: Cpuid, irqchip: bool, known: &[u32]) -> Result<()> {
        let context = self.context.clone();

        for (index, value) in GOVERNING {
            let mut pair = Pair::new(self.kvm, self.engines, cpuid, irqchip)?;

            self.context = format!("{context}after {index:#x} was set to {value:#x}, ");
            let set = pair.both(|guest| msrs::set(guest.vcpu(), index, value));
            self.same(|| "set".to_owned(), set);
            for &other in known.iter().filter(|&&other| other != index) {
                self.host(&mut pair, other, &[0, 1, u64::MAX])?;
            }
        }
        self.context = context;
        Ok(())
    }

    /// Accesses by user space, with KVM_SET_MSRS and KVM_SET_ONE_REG.
    pub fn host(&mut self, pair: &mut Pair, index: u32, values: &[u64]) -> Result<()> {
        let id = ONE_REG_MSR | u64::from(index);

        self.state(pair, index, "get");
        for &value in values {
            let set = pair.both(|guest| msrs::set(guest.vcpu(), index, value));
            self.same(|| format!("{index:#x}: set to {value:#x}"), set);
            self.state(pair, index, "get after set");

            let set = pair.both(|guest| ioctl::set_one_reg(guest.vcpu(), id, value));
            self.same(|| format!("{index:#x}: set one reg to {value:#x}"), set);
        }
        self.state(pair, index, "get at the end");
        Ok(())
    }

    /// Accesses by the guest.
    pub fn guest(&mut self, pair: &mut Pair, index: u32, values: &[u64]) -> Result<()> {
        let reasons = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN;

        self.rdmsr(pair, index);
        for &value in values {
            self.wrmsr(pair, index, value);
            self.rdmsr(pair, index);
        }
        // Again, with exits to user space, which has the reason.
        for guest in &pair.0 {
            guest.deflect(reasons)?;
        }
        for value in [0, u64::MAX] {
            let wrmsr = pair.both(|guest| {
                let outcome = guest.wrmsr(index, value).map_err(|e| e.to_string());
                finish(guest);
                outcome
            });
            self.same(
                || format!("{index:#x}: deflected WRMSR of {value:#x}"),
                wrmsr,
            );
        }
        self.rdmsr(pair, index);
        for guest in &pair.0 {
            guest.deflect(0)?;
        }
        Ok(())
    }

    fn wrmsr(&mut self, pair: &mut Pair, index: u32, value: u64) {
        let wrmsr = pair.both(|guest| guest.wrmsr(index, value).map_err(|e| e.to_string()));

        self.same(|| format!("{index:#x}: WRMSR of {value:#x}"), wrmsr);
        self.state(pair, index, "get after WRMSR");
    }

    fn rdmsr(&mut self, pair: &mut Pair, index: u32) {
        let rdmsr = pair.both(|guest| {
            let outcome = guest.rdmsr(index).map_err(|e| e.to_string());
            finish(guest);
            outcome
        });

        if by_time(index) {
            let has_value = rdmsr.map(|end| matches!(end, Ok(Outcome::Value(_))));
            self.same(|| format!("{index:#x}: RDMSR"), has_value);
        } else {
            self.same(|| format!("{index:#x}: RDMSR"), rdmsr);
        }
    }

    /// The value that user space reads, with KVM_GET_MSRS and KVM_GET_ONE_REG.
    fn state(&mut self, pair: &mut Pair, index: u32, step: &str) {
        let id = ONE_REG_MSR | u64::from(index);
        let get = pair.both(|guest| msrs::get(guest.vcpu(), index));
        let one: [Result<u64, Errno>; 2] = pair.both(|guest| ioctl::get_one_reg(guest.vcpu(), id));

        if by_time(index) {
            self.same(
                || format!("{index:#x}: {step}"),
                get.map(|value| value.map(|value| value.is_some())),
            );
            self.same(
                || format!("{index:#x}: {step}, one reg"),
                one.map(|value| value.map(|_| ())),
            );
        } else {
            self.same(|| format!("{index:#x}: {step}"), get);
            self.same(|| format!("{index:#x}: {step}, one reg"), one);
        }
    }

    /// An MSR that nobody has, with kvm's parameters ignore_msrs and report_ignored_msrs.
    pub fn with_reports(&mut self) -> Result<()> {
        let mut pair = Pair::after_run(self.kvm, self.engines, Cpuid::Full, false)?;

        self.context = "ignore_msrs and report_ignored_msrs, ".to_owned();
        self.host(&mut pair, 0xc000_1fff, &[0, 1])
    }

    /// Some accesses with kvm's parameter ignore_msrs.
    pub fn with_ignore_msrs(&mut self) -> Result<()> {
        let step = if self.quick { 101 } else { 7 };
        let indices: Vec<u32> = INHABITED
            .into_iter()
            .flat_map(|range| range.step_by(step))
            .collect();
        let mut host = Pair::after_run(self.kvm, self.engines, Cpuid::Full, false)?;
        let mut guest = Pair::after_run(self.kvm, self.engines, Cpuid::Full, false)?;

        self.context = "ignore_msrs, ".to_owned();
        for index in indices {
            // Some MSRs keep the written value, so the guests are not reused after writing EFER.
            self.state(&mut host, index, "get");
            if msrs::get(host.0[0].vcpu(), index)? == Some(0) {
                self.host(&mut host, index, &[0, 1 << 40])?;
                self.guest(&mut guest, index, &[0])?;
            }
        }
        Ok(())
    }
}

/// Completes an access that exited to user space: it fails.
fn finish(guest: &mut Guest) {
    guest.answer(0, 1);
}

fn by_time(index: u32) -> bool {
    BY_TIME.iter().any(|&(other, _)| other == index)
}
