// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What learning records.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_UNKNOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Random;
use kvm_msr_guest::Range;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Learn;
use kvm_msr_guest::device::uapi::Learned;
use kvm_msr_guest::device::uapi::MAX_LEARNED;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::filter;
use kvm_msr_guest::msrs as kvm_msrs;

use super::Test;
use super::model::ALL_REASONS;
use super::msrs;
use super::setup::attached;
use super::setup::learn;
use super::setup::learned;
use super::setup::set_policy;
use crate::Arguments;
use crate::suites::filter_guest::NOBODY;
use crate::suites::msrs_values::changes_by_itself;

/// The tests of this file.
pub const TESTS: &[(&str, Test)] = &[
    ("learning counts what it has no room for", lost),
    ("learning while rules and a filter decide", judged),
    ("learning writes of the fast path", fast_path),
];

/// The number of MSRs that the guest accesses.
const MSRS: usize = 200;

const APERF: u32 = 0xe8;
const MPERF: u32 = 0xe7;

/// The records that learning has to have.
#[derive(Default)]
struct Model(BTreeMap<u32, Learned>);

impl Model {
    /// Makes an access, and records it.
    fn access(
        &mut self,
        guest: &mut Guest,
        access: Access,
        emulated: bool,
        index: u32,
        data: u64,
    ) -> Result<Outcome> {
        let before = kvm_msrs::get(guest.vcpu(), index)?;
        let outcome = guest.access(access, emulated, index, data)?;
        let after = kvm_msrs::get(guest.vcpu(), index)?;
        let record = self.0.entry(index).or_insert(Learned {
            index,
            ..Default::default()
        });

        record.paths |= match emulated {
            false => uapi::PATH_EXIT,
            true => uapi::PATH_EMULATOR,
        };
        let value = match (access, outcome) {
            (Access::Read, Outcome::Value(value)) => Some(value),
            (Access::Read, _) => None,
            (Access::Write, _) => Some(data),
        };
        match access {
            Access::Read => record.reads += 1,
            Access::Write => record.writes += 1,
        }
        if let Some(value) = value {
            if record.flags & uapi::LEARNED_VALUE == 0 {
                record.first = value;
            }
            record.flags |= uapi::LEARNED_VALUE;
            record.last = value;
        }
        if let (Access::Write, Some(before), Some(after)) = (access, before, after) {
            record.changed |= before ^ after;
        }
        match outcome.user_space().map(|exit| exit.reason) {
            Some(KVM_MSR_EXIT_REASON_UNKNOWN) => {
                record.flags |= uapi::LEARNED_UNSUPPORTED | uapi::LEARNED_DENIED;
            }
            Some(_) => record.flags |= uapi::LEARNED_DENIED,
            None if outcome.is_gp() => record.flags |= uapi::LEARNED_DENIED,
            None => (),
        }
        Ok(outcome)
    }

    fn compare(&self, device: &Device) -> Result<()> {
        let records = learned(device)?;

        for record in &records {
            let expected = self.0.get(&record.index);
            ensure!(
                expected == Some(record),
                "{record:x?} instead of {expected:x?}"
            );
        }
        ensure!(
            records.len() == self.0.len(),
            "{} records instead of {}",
            records.len(),
            self.0.len()
        );
        Ok(())
    }
}

/// A guest accesses random MSRs, and exactly these are learned.
pub fn random(arguments: &Arguments) -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut random = Random::new(arguments.seed);
    let (mut guest, device) = attached()?;
    let mut model = Model::default();
    // All that harmless writes can be made to, what else KVM has, and what it does not have.
    let mut indices: Vec<u32> = msrs::all().collect();
    let harmless = indices.len();

    for &index in kvm.get_msr_index_list()?.as_slice() {
        let is_steady = !changes_by_itself(index) && index != APERF && index != MPERF;

        if is_steady && !indices.contains(&index) {
            indices.push(index);
        }
    }
    while indices.len() < MSRS {
        let index = NOBODY + random.below(0x10_0000);

        if !indices.contains(&index) {
            indices.push(index);
        }
    }

    guest.deflect(ALL_REASONS)?;
    // Not learned: before the start.
    guest.rdmsr(NOBODY - 1)?;
    guest.wrmsr(msrs::PASSED_THROUGH[3], 0x1111)?;
    learn(&device, uapi::START)?;
    for _ in 0..3 * MSRS {
        let at = random.below(MSRS as u32) as usize;
        access(&mut model, &mut guest, &mut random, &indices, at, harmless)?;
    }
    // Each at least once.
    for at in 0..MSRS {
        access(&mut model, &mut guest, &mut random, &indices, at, harmless)?;
    }
    model.compare(&device)?;
    learn(&device, uapi::STOP)?;
    guest.rdmsr(msrs::PASSED_THROUGH[3])?;
    guest.rdmsr(NOBODY - 1)?;
    model.compare(&device).context("after the stop")?;
    ensure!(model.0.len() == MSRS, "{} MSRs", model.0.len());
    Ok(format!("{MSRS} MSRs"))
}

fn access(
    model: &mut Model,
    guest: &mut Guest,
    random: &mut Random,
    indices: &[u32],
    at: usize,
    harmless: usize,
) -> Result<()> {
    let index = indices[at];
    let is_write = random.below(2) == 0 && (at < harmless || msrs::is_harmless(index));
    let access = if is_write {
        Access::Write
    } else {
        Access::Read
    };
    let data = msrs::value(random, index);

    model.access(guest, access, random.below(2) == 0, index, data)?;
    Ok(())
}

fn lost() -> Result<String> {
    const MORE: u32 = 5;
    let (mut guest, device) = attached()?;

    learn(&device, uapi::START)?;
    for i in 0..MAX_LEARNED + MORE {
        // Spread over all indices, beside those of the x2APIC.
        guest.rdmsr(NOBODY + i * 0x8_0001)?;
    }
    // Those that are known are still counted.
    guest.rdmsr(NOBODY)?;
    let array = Array::<Learned>::room(MAX_LEARNED as usize)?;
    let mut read = Learn::read(&array, MAX_LEARNED as usize);
    device.call(&mut read).context("LEARN: read")?;
    ensure!(
        read.nr_records == MAX_LEARNED && read.lost == u64::from(MORE),
        "{} records, {} lost",
        read.nr_records,
        read.lost
    );
    let records = array.read(MAX_LEARNED as usize);
    for i in 0..MAX_LEARNED {
        let index = NOBODY + i * 0x8_0001;
        let record = records.iter().find(|record| record.index == index);
        let reads = 1 + u64::from(i == 0);

        ensure!(
            record.is_some_and(|record| record.reads == reads),
            "{index:#x}: {record:x?}"
        );
    }
    learn(&device, uapi::START)?;
    ensure!(learned(&device)?.is_empty(), "there are old records");
    Ok(String::new())
}

fn judged() -> Result<String> {
    const PAT: u32 = 0x277;
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    let (mut guest, device) = attached()?;
    let rule =
        |index, access, action, value| Rule::new(index, index, access, uapi::ALWAYS, action, value);
    let mut model = Model::default();

    guest.deflect(ALL_REASONS)?;
    Filter::allow_by_default()
        .with(Range::deny(filter::READ | filter::WRITE, NOBODY, 1))
        .set(guest.vm())?;
    set_policy(
        &device,
        &[
            rule(PAT, WRITE, uapi::IGNORE, 0),
            rule(STAR, WRITE, uapi::MASK, 0xff),
            rule(LSTAR, READ | WRITE, uapi::GP, 0),
            rule(NOBODY + 1, READ | WRITE, uapi::CONSTANT, 0x55),
            rule(NOBODY + 2, READ | WRITE, uapi::EXIT, 0),
        ],
    )?;
    learn(&device, uapi::START)?;
    for index in [PAT, STAR, LSTAR, NOBODY, NOBODY + 1, NOBODY + 2] {
        for emulated in [false, true] {
            for data in [0x0007_0406, 0x0706] {
                model.access(&mut guest, Access::Write, emulated, index, data)?;
                model.access(&mut guest, Access::Read, emulated, index, 0)?;
            }
        }
    }
    model.compare(&device)?;
    ensure!(
        model.0[&PAT].changed == 0 && model.0[&STAR].changed == 6,
        "the rules are not in force"
    );
    Ok(String::new())
}

fn fast_path() -> Result<String> {
    const APIC_BASE: u32 = 0x1b;
    const TSC_DEADLINE: u32 = 0x6e0;
    const ICR: u32 = 0x830;
    const TIMES: u64 = 5;
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut options = Options::new(Engine::Rust);
    options.irqchip = true;
    let mut guest = Guest::new(&kvm, options)?;
    let device = Device::attached(guest.vm(), RIGHTS)?;

    // In x2APIC mode, and the bootstrap processor.
    ensure!(
        kvm_msrs::set(guest.vcpu(), APIC_BASE, 0xfee0_0d00)?,
        "there is no x2APIC"
    );
    learn(&device, uapi::START)?;
    for _ in 0..TIMES {
        for (index, data) in [
            (TSC_DEADLINE, 0),
            // To a vCPU that does not exist, as fixed interrupt.
            (ICR, 7 << 32 | 0x40),
        ] {
            let outcome = guest.wrmsr(index, data)?;
            ensure!(outcome == Outcome::Done, "{index:#x}: {outcome}");
        }
    }
    for record in learned(&device)? {
        ensure!(
            [TSC_DEADLINE, ICR].contains(&record.index)
                && record.writes == TIMES
                && record.reads == 0,
            "{record:x?}"
        );
    }
    ensure!(learned(&device)?.len() == 2, "not both are learned");
    Ok(String::new())
}
