// SPDX-License-Identifier: GPL-2.0

//! A model of C: `kvm_do_msr_access`, `__kvm_get_msr`, `__kvm_set_msr`, `kvm_get_msr_common` and
//! `kvm_set_msr_common` of `arch/x86/kvm/msrs.c`, and the MSRs that `svm.c` and `vmx.c` handle.
//!
//! It matches on indices, as C does, and uses neither the engine's table nor its rules.

use crate::engine::{
    access::{Access, Initiator},
    cpu::*,
    registers::{Feature, Field, Pv, Vendor},
};
use crate::model::*;
use std::{collections::BTreeSet, ops::RangeInclusive, sync::LazyLock};

/// KVM's convention: 1 for invalid, 2 for unsupported, or an errno.
pub type Result<T = ()> = std::result::Result<T, i32>;

#[rustfmt::skip]
const SVM: [RangeInclusive<u32>; 14] = [
    0xc000_0081..=0xc000_0084, 0xc000_0100..=0xc000_0104, 0x174..=0x176, 0x6a2..=0x6a2,
    0x6a8..=0x6a8, 0x4b56_4dff..=0x4b56_4dff, 0x1d9..=0x1d9, 0x1db..=0x1de,
    0xc001_0114..=0xc001_0114, 0xc001_0117..=0xc001_0117, 0x48..=0x48, 0xc001_011f..=0xc001_011f,
    0xc001_1021..=0xc001_1021, 0xc001_1029..=0xc001_1029,
];

#[rustfmt::skip]
const VMX: [RangeInclusive<u32>; 18] = [
    0xc000_0081..=0xc000_0084, 0xc000_0100..=0xc000_0103, 0x122..=0x122, 0xe1..=0xe1, 0x48..=0x48,
    0x174..=0x176, 0xd90..=0xd90, 0x4d0..=0x4d0, 0x3a..=0x3a, 0x8c..=0x8f, 0x480..=0x491,
    0x560..=0x561, 0x570..=0x572, 0x580..=0x587, 0x6a2..=0x6a2, 0x6a8..=0x6a8,
    0x4b56_4dff..=0x4b56_4dff, 0x1d9..=0x1d9,
];

/// MSRs that read as 0.
#[rustfmt::skip]
const ZEROES: [u32; 25] = [
    0x0, 0x1, 0x17, 0x2a, 0x199, 0x1db, 0x1dc, 0x1dd, 0x1de, 0x606, 0x611, 0x619, 0x639, 0x641,
    0xc001_0010, 0xc001_001f, 0xc001_0055, 0xc001_0058, 0xc001_0112, 0xc001_0113, 0xc001_0117,
    0xc001_1022, 0xc001_1023, 0xc001_102a, 0xc001_102c,
];

/// MSRs whose writes are ignored.
#[rustfmt::skip]
const IGNORED: [u32; 9] = [
    0x79, 0xc001_001b, 0xc001_001f, 0xc001_0020, 0xc001_0117, 0xc001_1022, 0xc001_1023,
    0xc001_102a, 0xc001_102c,
];

/// What a PMU can have.
#[rustfmt::skip]
const PMU: [RangeInclusive<u32>; 8] = [
    0xc1..=0xc8, 0x186..=0x18d, 0x309..=0x30b, 0x38d..=0x38f, 0x3f1..=0x3f2, 0x600..=0x600,
    0xc000_0300..=0xc000_0303, 0xc001_0200..=0xc001_020b,
];

/// Whether an index is one that any of the functions here has a case for.
pub fn is_known(index: u32) -> bool {
    static KNOWN: LazyLock<BTreeSet<u32>> = LazyLock::new(|| {
        let vcpu = Vcpu::new(Vendor::Amd);

        [0, 0x4000_0000, 0x4b56_4000, 0xc000_0000, 0xc001_0000]
            .into_iter()
            .flat_map(|first| first..first + 0x2000)
            .filter(|index| {
                let mut c = C::new(&vcpu, Initiator::Host);

                [&SVM[..], &VMX, &PMU]
                    .into_iter()
                    .flatten()
                    .any(|range| range.contains(index))
                    || c.get_common(*index) != Err(2)
                    || c.set_common(*index, 0) != Err(2)
            })
            // VM_IGNNE, which svm.c takes and msrs.c does not know.
            .chain([0xc001_0115])
            .collect()
    });

    KNOWN.contains(&index)
}

pub struct C<'a> {
    pub vcpu: &'a Vcpu,
    pub initiator: Initiator,
    pub done: Vec<Effect>,
}

const fn bit(n: u32) -> u64 {
    1 << n
}

fn require(ok: bool, error: i32) -> Result {
    if ok {
        Ok(())
    } else {
        Err(error)
    }
}

impl<'a> C<'a> {
    pub fn new(vcpu: &'a Vcpu, initiator: Initiator) -> Self {
        Self {
            vcpu,
            initiator,
            done: Vec::new(),
        }
    }

    fn host(&self) -> bool {
        self.initiator == Initiator::Host
    }

    fn has(&self, feature: Feature) -> bool {
        self.vcpu.features.has(feature)
    }

    fn need_pv(&self, bit: u32) -> Result {
        require(self.vcpu.has_pv(Pv(bit)), 2)
    }

    fn answer(&self) -> Result<u64> {
        self.vcpu.answer.map_err(|denial| denial.get() as i32)
    }

    fn get_from(&mut self, owner: Owner, index: u32) -> Result<u64> {
        self.done.push(Effect::Read(owner, index));
        if owner == Owner::Xstate {
            return Ok(ANSWER);
        }
        self.answer()
    }

    fn set_at(&mut self, owner: Owner, index: u32, data: u64) -> Result {
        self.done.push(Effect::Write(owner, index, data));
        if owner == Owner::Xstate {
            return Ok(());
        }
        self.answer().map(|_| ())
    }

    fn store(&mut self, field: Field, data: u64) -> Result {
        self.done.push(Effect::Field(field, data));
        Ok(())
    }

    fn unimplemented(&mut self, index: u32, data: u64) {
        let report = Effect::Unimplemented(index, data);

        self.done.push(report);
    }

    fn noncanonical(&self, address: u64) -> bool {
        let shift = 64 - self.vcpu.address_bits;

        ((address << shift) as i64 >> shift) as u64 != address
    }

    /// `svm_get_msr` and `vmx_get_msr`: MSRs for which `kvm_get_msr_common` is not called, or not
    /// alone, and unknown ones, which a later kernel's may handle. If the guest's state is
    /// encrypted, the vendor is called for all MSRs. L2 may have its own PAT.
    fn vendor_gets(&self, index: u32) -> bool {
        let among = |set: &[RangeInclusive<u32>]| set.iter().any(|range| range.contains(&index));

        self.vcpu.is_protected
            || !is_known(index)
            || match self.vcpu.vendor {
                Vendor::Amd => among(&SVM) || index == 0x277 && self.vcpu.is_nested,
                Vendor::Intel => among(&VMX),
            }
    }

    /// `svm_set_msr` and `vmx_set_msr`.
    fn vendor_sets(&self, index: u32) -> bool {
        self.vcpu.is_protected
            || match (self.vcpu.vendor, index) {
                (Vendor::Amd, 0x277 | 0xc001_0115) => true,
                (Vendor::Amd, 0xc001_1021) => false,
                (Vendor::Intel, 0x10a | 0x1c4 | 0x277 | 0x345) => true,
                _ => self.vendor_gets(index),
            }
    }

    fn check_tsc_aux(&self) -> Result {
        require(self.vcpu.can_switch_tsc_aux, 1)?;
        require(
            self.host() || self.has(Feature::Rdtscp) || self.has(Feature::Rdpid),
            1,
        )
    }

    fn has_cet(&self) -> bool {
        self.has(Feature::ShadowStack) || self.has(Feature::BranchTracking)
    }

    /// `__kvm_get_msr`
    pub fn get(&mut self, index: u32) -> Result<u64> {
        match index {
            0xc000_0103 => self.check_tsc_aux()?,
            0x6a0 | 0x6a2 => require(self.has_cet(), 2)?,
            0x4b56_4dff | 0x6a4..=0x6a8 => {
                require(index != 0x4b56_4dff || self.host(), 1)?;
                require(self.has(Feature::ShadowStack), 2)?;
            }
            _ => (),
        }
        if self.vendor_gets(index) {
            return self.get_from(Owner::Vendor(self.initiator), index);
        }
        self.get_common(index)
    }

    /// `__kvm_set_msr`
    pub fn set(&mut self, index: u32, mut data: u64) -> Result {
        match index {
            0xc000_0100..=0xc000_0102 | 0xc000_0082 | 0xc000_0083 => {
                require(!self.noncanonical(data), 1)?;
            }
            0x175 | 0x176 => {
                let shift = 64 - self.vcpu.address_bits;

                data = ((data << shift) as i64 >> shift) as u64;
            }
            0xc000_0103 => {
                self.check_tsc_aux()?;
                require(self.vcpu.is_amd_compatible || data >> 32 == 0, 1)?;
                data = u64::from(data as u32);
            }
            0x6a0 | 0x6a2 => {
                require(self.has_cet(), 2)?;
                require(self.is_valid_u_s_cet(data), 1)?;
            }
            0x4b56_4dff | 0x6a4..=0x6a8 => {
                let table = index == 0x6a8;

                require(index != 0x4b56_4dff || self.host(), 1)?;
                require(self.has(Feature::ShadowStack), 2)?;
                require(!table || self.has(Feature::Lm), 2)?;
                require(!self.noncanonical(data), 1)?;
                require(table || data & 3 == 0, 1)?;
            }
            _ => (),
        }
        if self.vendor_sets(index) {
            return self.set_at(Owner::Vendor(self.initiator), index, data);
        }
        self.set_common(index, data)
    }

    fn is_valid_u_s_cet(&self, data: u64) -> bool {
        let supports = |feature, mask| self.has(feature) || data & mask == 0;

        data & 0x3c0 == 0
            && supports(Feature::ShadowStack, 0x3)
            && supports(Feature::BranchTracking, 0x3c | !0x3ff)
            && data >> 12 & 3 == 0
            && data & (bit(10) | bit(11)) != bit(10) | bit(11)
    }

    /// `kvm_get_msr_common`
    pub fn get_common(&mut self, index: u32) -> Result<u64> {
        let vcpu = self.vcpu;
        let field = |field| Ok(vcpu.field(field));

        match index {
            _ if ZEROES.contains(&index) => Ok(0),
            0xc001_0000..=0xc001_0007 | 0xc1..=0xc2 | 0x186..=0x187 if !vcpu.has_pmu => Ok(0),
            0x8b => field(Field::MicrocodeVersion),
            0x10a => {
                require(self.has(Feature::ArchCapabilities), 2)?;
                field(Field::ArchCapabilities)
            }
            0x345 => {
                require(self.has(Feature::Pdcm), 2)?;
                field(Field::PerfCapabilities)
            }
            0x1fc => field(Field::PowerCtl),
            0x10 if self.host() => Ok(L1_TSC),
            0x10 => Ok(TSC),
            0x277 => field(Field::Pat),
            0xfe | 0x200..=0x26f | 0x2ff => self.get_from(Owner::Mtrr, index),
            0xcd => Ok(3),
            0x2c => Ok(1 << 24),
            0x1b => field(Field::ApicBase),
            0x800..=0x8ff => self.get_from(Owner::X2apic, index),
            0x6e0 => Ok(TSC_DEADLINE),
            0x3b => field(Field::TscAdjust),
            0x1a0 => field(Field::MiscEnable),
            0x9e => {
                require(vcpu.has_smm && self.host(), 1)?;
                field(Field::Smbase)
            }
            0x34 => field(Field::SmiCount),
            0x198 => Ok(1000 | 4 << 40),
            0xc000_0080 => field(Field::Efer),
            0x11 => self.need_pv(0).map(|()| WALL_CLOCK),
            0x4b56_4d00 => self.need_pv(3).map(|()| WALL_CLOCK),
            0x12 => self.need_pv(0).and_then(|()| field(Field::SystemTime)),
            0x4b56_4d01 => self.need_pv(3).and_then(|()| field(Field::SystemTime)),
            0x4b56_4d02 => self.need_pv(4).and_then(|()| field(Field::AsyncPfEn)),
            0x4b56_4d06 => self.need_pv(14).and_then(|()| field(Field::AsyncPfInt)),
            0x4b56_4d07 => self.need_pv(14).map(|()| 0),
            0x4b56_4d03 => self.need_pv(5).and_then(|()| field(Field::StealTime)),
            0x4b56_4d04 => self.need_pv(6).and_then(|()| field(Field::PvEoi)),
            0x4b56_4d05 => self.need_pv(12).and_then(|()| field(Field::PollControl)),
            0x179..=0x17b | 0x400..=0x47f | 0x280..=0x29f => self.get_mce(index),
            0xda0 => {
                require(self.host() || vcpu.has_xsaves, 1)?;
                field(Field::Xss)
            }
            0xc001_001b => Ok(0x2000_0000),
            _ if is_hyperv(index) => self.get_from(Owner::HyperV(self.initiator), index),
            0x11e => Ok(0xbe70_2111),
            0xc001_0140 => {
                require(self.has(Feature::Osvw), 1)?;
                field(Field::OsvwLength)
            }
            0xc001_0141 => {
                require(self.has(Feature::Osvw), 1)?;
                field(Field::OsvwStatus)
            }
            0xce => {
                require(self.host() || vcpu.may_read_platform_info, 1)?;
                field(Field::PlatformInfo)
            }
            0x140 => field(Field::MiscFeaturesEnables),
            0xc001_0015 => field(Field::Hwcr),
            0x1c4 => {
                require(self.host() || self.has(Feature::Xfd), 1)?;
                Ok(XFD)
            }
            0x1c5 => {
                require(self.host() || self.has(Feature::Xfd), 1)?;
                field(Field::XfdErr)
            }
            0x6a0 | 0x6a4..=0x6a7 => self.get_from(Owner::Xstate, index),
            _ => {
                require(vcpu.has_pmu, 2)?;
                self.get_from(Owner::Pmu(self.initiator), index)
            }
        }
    }

    /// `get_msr_mce`
    fn get_mce(&self, index: u32) -> Result<u64> {
        let cap = self.vcpu.field(Field::McgCap);
        let banks = cap as u8;

        match index {
            0x179 => Ok(cap),
            0x17a => Ok(self.vcpu.field(Field::McgStatus)),
            0x17b => {
                require(self.host() || cap & bit(8) != 0, 1)?;
                Ok(self.vcpu.field(Field::McgCtl))
            }
            0x280..=0x29f => {
                let bank = index - 0x280;

                require(bank < banks.into(), 1)?;
                require(self.host() || cap & bit(10) != 0, 1)?;
                Ok(MCE_CTL2 + u64::from(bank))
            }
            _ => {
                let offset = index - 0x400;

                require(offset / 4 < banks.into(), 1)?;
                Ok(MCE_BANKS + u64::from(offset))
            }
        }
    }

    /// `kvm_set_msr_common`
    pub fn set_common(&mut self, index: u32, data: u64) -> Result {
        let vcpu = self.vcpu;
        let old = |field| vcpu.field(field);

        if vcpu.xen == Some(index) && !self.host() {
            return self.set_at(Owner::XenHypercallPage, index, data);
        }
        match index {
            _ if IGNORED.contains(&index) => Ok(()),
            0x8b if self.host() => self.store(Field::MicrocodeVersion, data),
            0x8b => Ok(()),
            0x10a => {
                require(self.host() && self.has(Feature::ArchCapabilities), 2)?;
                self.store(Field::ArchCapabilities, data)
            }
            0x345 => {
                require(self.host() && self.has(Feature::Pdcm), 2)?;
                require(data & !vcpu.supported_perf_capabilities == 0, 1)?;
                if old(Field::PerfCapabilities) != data {
                    self.store(Field::PerfCapabilities, data)?;
                    self.done.push(Effect::RefreshPmu);
                    self.done.push(Effect::Request(Request::RecalcIntercepts));
                }
                Ok(())
            }
            0x49 => self.set_pred_cmd(data),
            0x10b => {
                require(self.host() || self.has(Feature::FlushL1d), 1)?;
                require(vcpu.host_features.has(Feature::FlushL1d), 1)?;
                require(data <= 1, 1)?;
                if data == 1 {
                    self.done.push(Effect::FlushL1d);
                }
                Ok(())
            }
            0xc000_0080 => self.set_efer(data),
            0xc001_0015 => {
                let data = data & !0x148;
                let mut valid = bit(18) | bit(24);

                if self.has(Feature::CpuidUserDis) {
                    valid |= bit(35);
                }
                if data & !valid != 0 {
                    self.unimplemented(index, data);
                    return Err(1);
                }
                self.store(Field::Hwcr, data)
            }
            0xc001_0058 if data == 0 => Ok(()),
            0xc001_0058 => {
                self.unimplemented(index, data);
                Err(1)
            }
            0x277 => {
                require(
                    data.to_le_bytes()
                        .iter()
                        .all(|kind| matches!(kind, 0 | 1 | 4..=7)),
                    1,
                )?;
                self.store(Field::Pat, data)
            }
            0x200..=0x26f | 0x2ff => self.set_at(Owner::Mtrr, index, data),
            0x1b => {
                self.done.push(Effect::ApicBase(data, self.initiator));
                self.answer().map(|_| ())
            }
            0x800..=0x8ff => self.set_at(Owner::X2apic, index, data),
            0x6e0 => {
                self.done.push(Effect::TscDeadline(data));
                Ok(())
            }
            0x3b => {
                if !self.has(Feature::TscAdjust) {
                    return Ok(());
                }
                if !self.host() {
                    self.done.push(Effect::AdjustTscOffset(
                        data.wrapping_sub(old(Field::TscAdjust)),
                    ));
                    self.done.push(Effect::Request(Request::ClockUpdate));
                }
                self.store(Field::TscAdjust, data)
            }
            0x1a0 => self.set_misc_enable(data),
            0x9e => {
                require(vcpu.has_smm && self.host(), 1)?;
                self.store(Field::Smbase, data)
            }
            0x1fc => self.store(Field::PowerCtl, data),
            0x10 if self.host() => {
                self.done.push(Effect::SynchronizeTsc(data));
                Ok(())
            }
            0x10 if vcpu.is_tsc_protected => Ok(()),
            0x10 => {
                let adjustment = vcpu.tsc_adjustment(data);

                self.done.push(Effect::AdjustTscOffset(adjustment));
                self.store(
                    Field::TscAdjust,
                    old(Field::TscAdjust).wrapping_add(adjustment),
                )
            }
            0xda0 => {
                require(vcpu.has_xsaves, 2)?;
                require(data & !vcpu.supported_xss == 0, 1)?;
                if old(Field::Xss) != data {
                    self.store(Field::Xss, data)?;
                    self.done.push(Effect::InvalidateCpuid);
                }
                Ok(())
            }
            0x34 => {
                require(self.host(), 1)?;
                self.store(Field::SmiCount, data)
            }
            0x11 | 0x4b56_4d00 => {
                self.need_pv(if index == 0x11 { 0 } else { 3 })?;
                self.done.push(Effect::WallClock(data));
                Ok(())
            }
            0x12 | 0x4b56_4d01 => {
                let old = index == 0x12;

                self.need_pv(if old { 0 } else { 3 })?;
                self.set_system_time(data, old);
                Ok(())
            }
            0x4b56_4d02 => {
                self.need_pv(4)?;
                self.set_async_pf_en(data)
            }
            0x4b56_4d06 => {
                self.need_pv(14)?;
                require(data >> 8 == 0 && vcpu.has_lapic, 1)?;
                self.store(Field::AsyncPfInt, data)?;
                self.done.push(Effect::AsyncPfVector(data as u8));
                Ok(())
            }
            0x4b56_4d07 => {
                self.need_pv(14)?;
                if data & 1 != 0 {
                    self.done.push(Effect::AcknowledgeAsyncPf);
                }
                Ok(())
            }
            0x4b56_4d03 => {
                self.need_pv(5)?;
                require(vcpu.has_sched_info && data & 0x3e == 0, 1)?;
                self.store(Field::StealTime, data)?;
                if data & 1 != 0 {
                    self.done.push(Effect::Request(Request::StealUpdate));
                }
                Ok(())
            }
            0x4b56_4d04 => {
                self.need_pv(6)?;
                self.done.push(Effect::PvEoi(data));
                self.answer().map(|_| ())
            }
            0x4b56_4d05 => {
                self.need_pv(12)?;
                require(data <= 1, 1)?;
                self.store(Field::PollControl, data)
            }
            0x17a | 0x17b | 0x400..=0x47f | 0x280..=0x29f => self.set_mce(index, data),
            0xc001_0000..=0xc001_0007 | 0xc1..=0xc2 | 0x186..=0x187 if !vcpu.has_pmu => {
                if data != 0 {
                    self.unimplemented(index, data);
                }
                Ok(())
            }
            _ if is_hyperv(index) => self.set_at(Owner::HyperV(self.initiator), index, data),
            0x11e => {
                self.unimplemented(index, data);
                Ok(())
            }
            0xc001_0140 => {
                require(self.has(Feature::Osvw), 1)?;
                self.store(Field::OsvwLength, data)
            }
            0xc001_0141 => {
                require(self.has(Feature::Osvw), 1)?;
                self.store(Field::OsvwStatus, data)
            }
            0xce => {
                require(self.host(), 1)?;
                self.store(Field::PlatformInfo, data)
            }
            0x140 => {
                let can_fault = old(Field::PlatformInfo) & bit(31) != 0;

                require(data == 0 || data == 1 && can_fault, 1)?;
                self.store(Field::MiscFeaturesEnables, data)
            }
            0x1c4 | 0x1c5 => {
                require(self.host() || self.has(Feature::Xfd), 1)?;
                require(data & !vcpu.supported_xfd == 0, 1)?;
                if index == 0x1c5 {
                    return self.store(Field::XfdErr, data);
                }
                self.done.push(Effect::Xfd(data));
                Ok(())
            }
            0x6a0 | 0x6a4..=0x6a7 => self.set_at(Owner::Xstate, index, data),
            _ => {
                require(vcpu.has_pmu, 2)?;
                self.set_at(Owner::Pmu(self.initiator), index, data)
            }
        }
    }

    fn set_pred_cmd(&mut self, data: u64) -> Result {
        let ibpb = self.has(Feature::SpecCtrl) || self.has(Feature::AmdIbpb);
        let sbpb = self.has(Feature::Sbpb);
        let mut reserved = !(bit(0) | bit(7));

        if !self.host() {
            require(ibpb || sbpb, 1)?;
            if !ibpb {
                reserved |= bit(0);
            }
            if !sbpb {
                reserved |= bit(7);
            }
        }
        if !self.vcpu.host_has_ibpb {
            reserved |= bit(0);
        }
        if !self.vcpu.host_features.has(Feature::Sbpb) {
            reserved |= bit(7);
        }
        require(data & reserved == 0, 1)?;
        if data != 0 {
            self.done.push(Effect::Predict(data));
        }
        Ok(())
    }

    /// `set_efer`
    fn set_efer(&mut self, data: u64) -> Result {
        let old = self.vcpu.field(Field::Efer);

        require(data & !self.vcpu.supported_efer == 0, 1)?;
        if !self.host() {
            require(self.is_valid_efer(data), 1)?;
            require(!self.vcpu.is_paging || (old ^ data) & bit(8) == 0, 1)?;
        }

        let efer = data & !bit(10) | old & bit(10);

        self.done.push(Effect::VendorEfer(efer));
        self.answer()?;
        self.done.push(Effect::EferChanged(old, efer));
        Ok(())
    }

    /// `__kvm_valid_efer`
    pub fn is_valid_efer(&self, efer: u64) -> bool {
        !(efer & bit(21) != 0 && !self.has(Feature::AutoIbrs)
            || efer & bit(14) != 0 && !self.has(Feature::FxsrOpt)
            || efer & bit(12) != 0 && !self.has(Feature::Svm)
            || efer & (bit(8) | bit(10)) != 0 && !self.has(Feature::Lm)
            || efer & bit(11) != 0 && !self.has(Feature::Nx))
    }

    fn set_misc_enable(&mut self, mut data: u64) -> Result {
        let old = self.vcpu.field(Field::MiscEnable);

        if !self.host() {
            require((old ^ data) & (bit(11) | bit(12)) == 0, 1)?;
            data = data & !bit(7) | old & bit(7);
        }
        if (old ^ data) & bit(18) != 0 && !self.vcpu.misc_enable_is_quirky {
            require(self.has(Feature::Xmm3), 1)?;
            self.store(Field::MiscEnable, data)?;
            self.done.push(Effect::InvalidateCpuid);
            return Ok(());
        }
        self.store(Field::MiscEnable, data)
    }

    /// `kvm_write_system_time`
    fn set_system_time(&mut self, data: u64, old: bool) {
        if self.vcpu.is_boot_cpu && !self.host() {
            if self.vcpu.boot_clock_is_old != old {
                self.done.push(Effect::Request(Request::MasterClockUpdate));
            }
            self.done.push(Effect::BootClockIsOld(old));
        }
        self.done.push(Effect::Field(Field::SystemTime, data));
        self.done.push(Effect::Request(Request::GlobalClockUpdate));
        self.done.push(Effect::ClockAddress(match data & 1 {
            0 => None,
            _ => Some(data - 1),
        }));
    }

    /// `kvm_pv_enable_async_pf`
    fn set_async_pf_en(&mut self, data: u64) -> Result {
        require(data & 0x30 == 0, 1)?;
        require(data & 4 == 0 || self.vcpu.has_pv(Pv(10)), 1)?;
        require(data & 8 == 0 || self.vcpu.has_pv(Pv(14)), 1)?;
        if !self.vcpu.has_lapic {
            return require(data == 0, 1);
        }
        let enabled = data & 9 == 9;

        if enabled {
            self.done.push(Effect::AsyncPfAddress(data / 64 * 64));
            self.answer()?;
        }
        self.store(Field::AsyncPfEn, data)?;
        self.done.push(match enabled {
            true => Effect::WakeAsyncPf,
            false => Effect::ClearAsyncPf,
        });
        Ok(())
    }

    /// `set_msr_mce`
    fn set_mce(&mut self, index: u32, data: u64) -> Result {
        let cap = self.vcpu.field(Field::McgCap);
        let banks = cap as u8;

        match index {
            0x17a => self.store(Field::McgStatus, data),
            0x17b => {
                require(cap & bit(8) != 0 || data == 0 && self.host(), 1)?;
                require(data == 0 || data == !0, 1)?;
                self.store(Field::McgCtl, data)
            }
            0x280..=0x29f => {
                let bank = index - 0x280;

                require(bank < banks.into(), 1)?;
                require(cap & bit(10) != 0 || data == 0 && self.host(), 1)?;
                require(data & !(bit(30) | 0x7fff) == 0, 1)?;
                self.done.push(Effect::MceCtl2(bank as usize, data));
                Ok(())
            }
            _ => {
                let offset = index - 0x400;

                require(offset / 4 < banks.into(), 1)?;
                if offset & 3 == 0 {
                    require(data == 0 || data | bit(10) | bit(0) == !0, 1)?;
                }
                if offset & 3 == 1 && !self.host() {
                    let may_set =
                        self.vcpu.is_amd_compatible && self.vcpu.field(Field::Hwcr) & bit(18) != 0;

                    require(data == 0 || may_set, 1)?;
                }
                self.done.push(Effect::MceBank(offset as usize, data));
                Ok(())
            }
        }
    }

    /// `kvm_get_msr_ignored_check`
    pub fn get_ignored_check(&mut self, index: u32) -> Result<u64> {
        let got = self.get(index);

        if got != Err(2) {
            return got;
        }
        self.ignored_check(index, 0, Access::Read).map(|()| 0)
    }

    /// `kvm_set_msr_ignored_check`
    pub fn set_ignored_check(&mut self, index: u32, data: u64) -> Result {
        let set = self.set(index, data);

        if set != Err(2) {
            return set;
        }
        self.ignored_check(index, data, Access::Write)
    }

    fn ignored_check(&mut self, index: u32, data: u64, access: Access) -> Result {
        if self.host() && data == 0 && self.vcpu.is_listed {
            return Ok(());
        }
        if self.vcpu.ignores_unknown {
            let report = Effect::Report(Report::Ignored(access), index, data);

            self.done.push(report);
            return Ok(());
        }
        let report = Effect::Report(Report::Unhandled(access), index, data);

        self.done.push(report);
        Err(2)
    }

    /// `is_xstate_managed_msr`
    pub fn is_xstate_managed(&self, index: u32) -> bool {
        match index {
            0x6a0 => self.has_cet(),
            0x6a4..=0x6a7 => self.has(Feature::ShadowStack),
            _ => false,
        }
    }
}

/// The indices that Hyper-V's code handles.
fn is_hyperv(index: u32) -> bool {
    matches!(
        index,
        0x4000_0000..=0x4000_009f
            | 0x4000_00b0..=0x4000_00b7
            | 0x4000_00f1..=0x4000_00f5
            | 0x4000_00ff
            | 0x4000_0100..=0x4000_0108
            | 0x4000_0118
    )
}
