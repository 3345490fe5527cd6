// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The accesses, and what is compared of them.

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
use kvm_msr_guest::engine;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;

use crate::TOLD;

/// Where MSRs may be.
const INHABITED: [Range<u32>; 5] = [
    0..0x2000,
    0x4000_0000..0x4000_1100,
    0x4b56_4d00..0x4b56_4e00,
    0xc000_0000..0xc000_2000,
    0xc001_0000..0xc001_2000,
];

/// How many more, anywhere.
const ANYWHERE: usize = 2000;

/// KVM_X86_REG_MSR(0).
const ONE_REG_MSR: u64 = 0x2030_0002_0000_0000;

/// MSRs whose value depends on time, so that it can't be equal, and why. Of
/// these, only whether they can be accessed is compared.
const BY_TIME: &[(u32, &str)] = &[
    (0x10, "the TSC goes on"),
    (0x3b, "what a write of the TSC adds depends on when it is"),
    (0xe7, "MPERF goes on"),
    (0xe8, "APERF goes on"),
    (0x4000_0010, "the time that the vCPU ran"),
    (0x4000_0020, "the time since the VM was created"),
];

/// Values that are at some edge, for MSRs that are known.
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

/// MSRs that say what others can be, each with a value that changes that.
const GOVERNING: [(u32, u64); 9] = [
    // PLATFORM_INFO, without CPUID faulting and with it.
    (0xce, 0),
    (0xce, 1 << 31),
    // IA32_APIC_BASE: x2APIC, which there is with an irqchip only.
    (0x1b, 0xfee0_0d00),
    // IA32_ARCH_CAPABILITIES, IA32_PERF_CAPABILITIES, IA32_MISC_ENABLE: nothing.
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

/// The same guest twice: once served by C and once by the engine, unless it is for a trace.
struct Pair([Guest; 2]);

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

    /// The same with a vCPU that has run.
    fn after_run(kvm: &Kvm, engines: [Engine; 2], cpuid: Cpuid, irqchip: bool) -> Result<Self> {
        let mut pair = Self::new(kvm, engines, cpuid, irqchip)?;

        for guest in &mut pair.0 {
            guest.rdmsr(0x277)?;
        }
        Ok(pair)
    }

    fn both<T>(&mut self, mut access: impl FnMut(&mut Guest) -> T) -> [T; 2] {
        let [c, engine] = &mut self.0;

        [access(c), access(engine)]
    }
}

/// The comparison, and what came of it so far.
pub struct Sweep<'a> {
    kvm: &'a Kvm,
    /// What serves the one and the other guest.
    pub engines: [Engine; 2],
    quick: bool,
    /// What is random comes from here.
    pub random: Random,
    context: String,
    /// Observations that were compared.
    pub cases: u64,
    /// Those that were not equal.
    pub differences: u64,
    /// The first of them, in words.
    pub first: Vec<String>,
}

impl<'a> Sweep<'a> {
    /// Nothing is compared yet.
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

    /// What differences are told to be part of.
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

    /// Compares one observation, whose description is only made if need be.
    pub fn same<T: PartialEq + Debug>(&mut self, access: impl FnOnce() -> String, seen: [T; 2]) {
        let [c, engine] = seen;

        if c == engine {
            self.cases += 1;
        } else {
            self.compare(&access(), &c, &engine);
        }
    }

    /// Feature MSRs of the device, and some that are none.
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
                engine::set_enabled(engine == Engine::Rust)?;
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

    /// IDs that are not those of an MSR, or not quite.
    fn ids(&mut self, cpuid: Cpuid) -> Result<()> {
        const GUEST_SSP: u64 = 0x2030_0003_0000_0000;
        const PAT: u64 = ONE_REG_MSR | 0x277;
        const NOBODY: u64 = ONE_REG_MSR | 0xc000_1fff;
        let mut pair = Pair::new(self.kvm, self.engines, cpuid, false)?;
        let mut ids = vec![0, u64::MAX, 0x2030_0002_4b56_4dff];

        for id in [PAT, NOBODY, GUEST_SSP] {
            ids.push(id);
            // Type, reserved, size and architecture.
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

    /// Tells the MSRs that C knows in any way from those that it does not.
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
        // Many of a kind: local APIC, machine checks, MTRRs.
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

    /// MSRs that nobody knows: nothing can change.
    fn unknown(&mut self, cpuid: Cpuid, irqchip: bool, ran: bool, indices: &[u32]) -> Result<()> {
        let mut pair = if ran {
            Pair::after_run(self.kvm, self.engines, cpuid, irqchip)?
        } else {
            Pair::new(self.kvm, self.engines, cpuid, irqchip)?
        };

        for &index in indices {
            let random = self.random.next();

            self.host(&mut pair, index, &[0, u64::MAX, random])?;
            if ran && !irqchip {
                // The guest is slower by far, and all of these are alike.
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

    /// An MSR that somebody knows, on guests that nothing else was done to.
    fn known(&mut self, cpuid: Cpuid, irqchip: bool, ran: bool, index: u32) -> Result<()> {
        let mut values = EDGES.to_vec();

        values.extend([self.random.next(), self.random.next()]);
        values.extend((0..64).map(|bit| 1 << bit));
        let pair = || {
            if ran {
                Pair::after_run(self.kvm, self.engines, cpuid, irqchip)
            } else {
                Pair::new(self.kvm, self.engines, cpuid, irqchip)
            }
        };

        let mut host = pair()?;
        let mut guest = pair()?;
        self.host(&mut host, index, &values)?;
        // With a local APIC in the kernel, a vCPU may wait for others forever.
        if ran && !irqchip {
            if self.quick {
                // The guest is slower by far.
                values.truncate(EDGES.len() + 8);
            }
            self.guest(&mut guest, index, &values)?;
        }
        Ok(())
    }

    /// MSRs that somebody knows, after another was written.
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

    /// Accesses of user space, by both of its ways.
    fn host(&mut self, pair: &mut Pair, index: u32, values: &[u64]) -> Result<()> {
        let id = ONE_REG_MSR | u64::from(index);

        self.state(pair, index, "get");
        for &value in values {
            let set = pair.both(|guest| msrs::set(guest.vcpu(), index, value));
            self.same(|| format!("{index:#x}: set to {value:#x}"), set);
            self.state(pair, index, "get after set");

            let set = pair.both(|guest| ioctl::set_one_reg(guest.vcpu(), id, value));
            self.same(|| format!("{index:#x}: set one reg to {value:#x}"), set);
        }
        self.state(pair, index, "get at last");
        Ok(())
    }

    /// Accesses of the guest.
    fn guest(&mut self, pair: &mut Pair, index: u32, values: &[u64]) -> Result<()> {
        let reasons = KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN;

        self.rdmsr(pair, index);
        for &value in values {
            self.wrmsr(pair, index, value);
            self.rdmsr(pair, index);
        }
        // Once more, with user space told why.
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

    /// What user space reads, by both of its ways.
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

    /// Some of all accesses while unknown MSRs do no harm.
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
            // What is written is kept by some, and EFER and its like are no more to be trusted.
            self.state(&mut host, index, "get");
            if msrs::get(host.0[0].vcpu(), index)? == Some(0) {
                self.host(&mut host, index, &[0, 1 << 40])?;
                self.guest(&mut guest, index, &[0])?;
            }
        }
        Ok(())
    }
}

/// Answers an access that was handed to user space: it fails.
fn finish(guest: &mut Guest) {
    guest.answer(0, 1);
}

fn by_time(index: u32) -> bool {
    BY_TIME.iter().any(|&(other, _)| other == index)
}
