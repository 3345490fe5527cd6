// SPDX-License-Identifier: GPL-2.0

//! The MSRs that KVM knows, each declared once.
//!
//! [`table::REGISTERS`] says of every MSR what it is called, whose it is, how it is read and
//! written, and in which lists it is. Everything else derives from that: the way from an index to
//! its declaration, which is an array that the compiler fills, the rules that [`super::access`]
//! applies, and the lists for user space.

mod table;

/// The declarations, from 1 on. All others are of nothing, so that any number of a byte is one of
/// a declaration.
pub(crate) static REGISTERS: [Register; 256] = {
    let mut registers = [UNDECLARED; 256];
    let mut at = 0;
    let mut listed = 0;

    while at < table::REGISTERS.len() {
        registers[at + 1] = table::REGISTERS[at].finished(listed);
        listed += table::REGISTERS[at].nr_listed();
        at += 1;
    }
    registers
};

/// How many MSRs may be in the lists.
pub(crate) const NR_LISTED: usize = {
    let mut at = 0;
    let mut listed = 0;

    while at < table::REGISTERS.len() {
        listed += table::REGISTERS[at].nr_listed() as usize;
        at += 1;
    }
    listed
};

/// Defines an enum of variants without data, and an array of them all.
macro_rules! enum_with_all {
    ($(#[$attribute:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// All of them, each at the place that is its number.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

/// The lists that user space can ask for, in whose order the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// In none.
    No,
    /// `KVM_GET_MSR_INDEX_LIST`, if the host's CPU has it and it meets the condition.
    Saved(Condition),
    /// The same, if KVM has a virtual PMU.
    SavedPmu(Condition),
    /// `KVM_GET_MSR_INDEX_LIST`, if the vendor module emulates it.
    Emulated,
}

/// What else a saved MSR depends on, apart from that the host's CPU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    Always,
    /// One of two features that KVM offers to guests.
    Either(Feature, Feature),
    /// All of two features that KVM offers to guests.
    Both(Feature, Feature),
    /// A feature that KVM offers to guests.
    Offers(Feature),
    /// Intel PT, and one of its capabilities.
    ProcessorTrace(Trace),
    /// A number of counters, the general purpose or the fixed ones, above this one's.
    Counter {
        /// Which of the two.
        fixed: bool,
        /// The counter's number.
        number: u32,
    },
    /// `IA32_ARCH_CAPABILITIES` says that there is `IA32_TSX_CTRL`.
    TsxCtrl,
    /// KVM supports a component that XSAVES manages for supervisors.
    Xss,
    /// KVM supports MPX.
    Mpx,
}

/// What Intel PT needs for an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Nothing else.
    Any,
    /// Filtering by CR3.
    Cr3Filtering,
    /// Output to memory, of either kind.
    Output,
    /// More than this number of address ranges.
    Ranges(u32),
}

enum_with_all! {
/// A feature that guests may or may not have, by CPUID.
Feature {
    /// `X86_FEATURE_XMM3`
    Xmm3,
    /// `X86_FEATURE_PDCM`
    Pdcm,
    /// `X86_FEATURE_NX`
    Nx,
    /// `X86_FEATURE_FXSR_OPT`
    FxsrOpt,
    /// `X86_FEATURE_RDTSCP`
    Rdtscp,
    /// `X86_FEATURE_LM`
    Lm,
    /// `X86_FEATURE_SVM`
    Svm,
    /// `X86_FEATURE_OSVW`
    Osvw,
    /// `X86_FEATURE_TSC_ADJUST`
    TscAdjust,
    /// `X86_FEATURE_INTEL_PT`
    IntelPt,
    /// `X86_FEATURE_XFD`
    Xfd,
    /// `X86_FEATURE_AMD_IBPB`
    AmdIbpb,
    /// `X86_FEATURE_SHSTK`
    ShadowStack,
    /// `X86_FEATURE_WAITPKG`
    Waitpkg,
    /// `X86_FEATURE_RDPID`
    Rdpid,
    /// `X86_FEATURE_IBT`
    BranchTracking,
    /// `X86_FEATURE_SPEC_CTRL`
    SpecCtrl,
    /// `X86_FEATURE_FLUSH_L1D`
    FlushL1d,
    /// `X86_FEATURE_ARCH_CAPABILITIES`
    ArchCapabilities,
    /// `X86_FEATURE_AUTOIBRS`
    AutoIbrs,
    /// `X86_FEATURE_SBPB`
    Sbpb,
    /// `X86_FEATURE_GP_ON_USER_CPUID`
    CpuidUserDis,
    /// `X86_FEATURE_PERFMON_V2`
    PerfmonV2,
}
}

/// A bit of the paravirtual features, `KVM_CPUID_FEATURES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pv(pub(crate) u32);

impl Pv {
    /// `KVM_FEATURE_CLOCKSOURCE`
    pub(crate) const CLOCKSOURCE: Self = Self(0);
    /// `KVM_FEATURE_CLOCKSOURCE2`
    pub(crate) const CLOCKSOURCE2: Self = Self(3);
    /// `KVM_FEATURE_ASYNC_PF`
    pub(crate) const ASYNC_PF: Self = Self(4);
    /// `KVM_FEATURE_STEAL_TIME`
    pub(crate) const STEAL_TIME: Self = Self(5);
    /// `KVM_FEATURE_PV_EOI`
    pub(crate) const EOI: Self = Self(6);
    /// `KVM_FEATURE_ASYNC_PF_VMEXIT`
    pub(crate) const ASYNC_PF_VMEXIT: Self = Self(10);
    /// `KVM_FEATURE_POLL_CONTROL`
    pub(crate) const POLL_CONTROL: Self = Self(12);
    /// `KVM_FEATURE_ASYNC_PF_INT`
    pub(crate) const ASYNC_PF_INT: Self = Self(14);
}

enum_with_all! {
/// A value of 64 bits that KVM keeps for each vCPU. Each is named like the MSR.
Field {
    ApicBase,
    ArchCapabilities,
    AsyncPfEn,
    AsyncPfInt,
    Efer,
    Hwcr,
    McgCap,
    McgCtl,
    McgStatus,
    MicrocodeVersion,
    MiscEnable,
    MiscFeaturesEnables,
    OsvwLength,
    OsvwStatus,
    Pat,
    PerfCapabilities,
    PlatformInfo,
    PollControl,
    PowerCtl,
    PvEoi,
    Smbase,
    SmiCount,
    StealTime,
    SystemTime,
    TscAdjust,
    XfdErr,
    Xss,
}
}

/// Who may access an MSR at all, and what others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Everybody.
    None,
    /// vCPUs with the feature; for others the MSR does not exist.
    Feature(Feature),
    /// vCPUs with the feature; for others the access is invalid.
    FeatureElseInvalid(Feature),
    /// User space, and guests with the feature; for others the access is invalid.
    GuestFeature(Feature),
    /// User space, for vCPUs with the feature; else the MSR does not exist.
    HostFeature(Feature),
    /// vCPUs with the paravirtual feature; for others the MSR does not exist.
    Pv(Pv),
    /// User space; for guests the access is invalid.
    Host,
    /// User space, if KVM has SMM; else the access is invalid.
    Smm,
}

/// What is checked first, even if the vendor module has the MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing.
    None,
    /// A write must be of a canonical address.
    Canonical,
    /// An address that is written is made canonical.
    MakeCanonical,
    /// `IA32_TSC_AUX`: needs the host's help, an instruction that reads it, and Intel reserves
    /// its upper half.
    TscAux,
    /// `IA32_U_CET` and `IA32_S_CET`.
    Cet,
    /// A shadow stack pointer.
    ShadowStackPointer,
    /// The table of shadow stack pointers, which is an address of 64-bit vCPUs.
    ShadowStackTable,
    /// The guest's current shadow stack pointer, which is an MSR for KVM itself only.
    GuestShadowStackPointer,
}

/// How an MSR is read that the vendor module does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Not at all, unless the PMU has it.
    Unsupported,
    /// It is always this.
    Constant(u64),
    /// It is what was stored.
    Field(Field),
    /// The VM's, not the vCPU's.
    WallClock,
    /// The time stamp counter.
    Tsc,
    /// `PLATFORM_INFO`, which guests may be kept from.
    PlatformInfo,
    /// `IA32_XSS`.
    Xss,
    /// A control register of machine checks.
    MachineCheckCtl,
    /// A bank of machine checks.
    MachineCheckBank,
    /// `IA32_MCi_CTL2`.
    MachineCheckCtl2,
    /// The PMU's if that has it, else 0.
    LegacyPmu,
    /// Memory type range registers.
    Mtrr,
    /// The local APIC, in x2APIC mode.
    X2apic,
    /// The local APIC's timer.
    TscDeadline,
    /// Hyper-V's enlightenments.
    HyperV,
    /// What is in the guest's FPU state.
    Xstate,
    /// The FPU's mask of features that fault.
    Xfd,
}

/// How an MSR is written that the vendor module does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Not at all, unless the PMU has it.
    Unsupported,
    /// It is dropped.
    Ignore,
    /// It is dropped, and the log says so.
    Drop,
    /// It has to be 0, and is dropped.
    Zero,
    /// It is stored.
    Field(Field),
    /// It is stored if user space writes, and dropped if the guest does.
    HostField(Field),
    /// It is stored, unless one of these bits is set.
    Reserved(Field, u64),
    /// `EFER`
    Efer,
    /// `IA32_CR_PAT`
    Pat,
    /// `IA32_APICBASE`
    ApicBase,
    /// `IA32_TSC`
    Tsc,
    /// `IA32_TSC_ADJUST`
    TscAdjust,
    /// `IA32_MISC_ENABLE`
    MiscEnable,
    /// `IA32_PERF_CAPABILITIES`
    PerfCapabilities,
    /// `IA32_PRED_CMD`
    PredCmd,
    /// `IA32_FLUSH_CMD`
    FlushCmd,
    /// `IA32_XSS`
    Xss,
    /// `IA32_XFD`
    Xfd,
    /// `IA32_XFD_ERR`
    XfdErr,
    /// `K7_HWCR`
    Hwcr,
    /// `MISC_FEATURES_ENABLES`
    MiscFeaturesEnables,
    /// `IA32_MCG_CTL`
    MachineCheckCtl,
    /// A bank of machine checks.
    MachineCheckBank,
    /// `IA32_MCi_CTL2`.
    MachineCheckCtl2,
    /// The PMU's if that has it, else dropped.
    LegacyPmu,
    /// `KVM_WALL_CLOCK`, old and new.
    WallClock,
    /// `KVM_SYSTEM_TIME`, old or new.
    SystemTime {
        /// The one with the index that real MSRs have.
        old: bool,
    },
    /// `KVM_ASYNC_PF_EN`
    AsyncPfEn,
    /// `KVM_ASYNC_PF_INT`
    AsyncPfInt,
    /// `KVM_ASYNC_PF_ACK`
    AsyncPfAck,
    /// `KVM_STEAL_TIME`
    StealTime,
    /// `KVM_PV_EOI_EN`
    PvEoi,
    /// Memory type range registers.
    Mtrr,
    /// The local APIC, in x2APIC mode.
    X2apic,
    /// The local APIC's timer.
    TscDeadline,
    /// Hyper-V's enlightenments.
    HyperV,
    /// What is in the guest's FPU state.
    Xstate,
}

/// A set of the accesses that go to the vendor module, per vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VendorSet(u8);

impl VendorSet {
    const NONE: Self = Self(0);
    const AMD_READ: u8 = 1 << Vendor::Amd as u8;
    const AMD_WRITE: u8 = 2 << Vendor::Amd as u8;
    const AMD_NESTED_READ: u8 = 4 << Vendor::Amd as u8;
    const INTEL_READ: u8 = 1 << Vendor::Intel as u8;
    const INTEL_WRITE: u8 = 2 << Vendor::Intel as u8;

    #[inline]
    fn of(self, vendor: Vendor) -> u8 {
        self.0 >> vendor as u8
    }

    /// Whether reads are the vendor module's.
    #[inline]
    pub(crate) fn reads(self, vendor: Vendor) -> bool {
        self.of(vendor) & 1 != 0
    }

    /// Whether reads are the vendor module's while a guest of the guest runs.
    #[inline]
    pub(crate) fn reads_nested(self, vendor: Vendor) -> bool {
        self.of(vendor) & 4 != 0
    }

    /// Whether writes are the vendor module's.
    #[inline]
    pub(crate) fn writes(self, vendor: Vendor) -> bool {
        self.of(vendor) & 2 != 0
    }
}

/// Whose virtualisation the host has. The number is where its bits in a [`VendorSet`] begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Vendor {
    /// SVM: AMD and Hygon.
    Amd = 0,
    /// VMX: Intel, Centaur and Zhaoxin.
    Intel = 4,
}

/// MSRs that describe the vCPU's model, as CPUID does: `KVM_GET_MSR_FEATURE_INDEX_LIST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// Not one of them.
    No,
    /// One that can't change once the vCPU has run. The number is its place in the list.
    Fixed(u8),
    /// One that can.
    Changing(u8),
}

/// What is known of an MSR, or of several that are alike and adjacent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register {
    /// The first index.
    pub(crate) first: u32,
    /// The last index.
    pub(crate) last: u32,
    /// As in `asm/msr-index.h`, without the `MSR_`. For people.
    #[allow(dead_code)]
    pub(crate) name: &'static str,
    /// Which accesses are the vendor module's.
    pub(crate) vendor: VendorSet,
    /// What is checked before anything else.
    pub(crate) gate: Gate,
    /// Who may read.
    pub(crate) read_guard: Guard,
    /// How it is read.
    pub(crate) read: Read,
    /// Who may write.
    pub(crate) write_guard: Guard,
    /// How it is written.
    pub(crate) write: Write,
    /// Which list it is in.
    pub(crate) listed: Listed,
    /// Whether it describes the model.
    pub(crate) model: Model,
    /// Whether the gate concerns reads.
    pub(crate) gates_reads: bool,
    /// Whether the gate concerns writes.
    pub(crate) gates_writes: bool,
    /// Nothing is to be checked before a read, and it is the engine's, unless the vCPU is in an
    /// unusual state: its own guest runs, or its state is encrypted.
    pub(crate) plain_read: bool,
    /// The same for writes.
    pub(crate) plain_write: bool,
    /// How many MSRs the declarations before this one have that are to be listed, if it is too.
    pub(crate) list_position: Option<u16>,
    /// It is in the guest's FPU state, which has to be loaded for it.
    pub(crate) is_xstate: bool,
}

/// What an index has that is not declared.
const UNDECLARED: Register = Register::range(0, u32::MAX, "").finished(0);

/// The lowest indices, and what is declared there, as positions in [`REGISTERS`].
static LOW: [u8; 0x2000] = positions(0);

/// The pages above that have declarations, each in its [`page_slot`].
static PAGES: [Page; 1 << PAGE_BITS] = {
    const NONE: Page = Page {
        number: NO_PAGE,
        positions: &[0; PAGE],
    };
    let declared = [
        (0x4_0000, &HYPERV),
        (0x4_b564, &PARAVIRTUAL),
        (0xc_0000, &AMD),
        (0xc_0010, &AMD_K8),
        (0xc_0011, &AMD_F10),
    ];
    let mut pages = [NONE; 1 << PAGE_BITS];
    let mut at = 0;

    while at < declared.len() {
        let (number, positions) = declared[at];
        let slot = page_slot(number);

        assert!(
            pages[slot].number == NO_PAGE,
            "PAGE_FACTOR is to be chosen anew"
        );
        pages[slot] = Page { number, positions };
        at += 1;
    }
    pages
};

static HYPERV: [u8; PAGE] = positions(0x4000_0000);
static PARAVIRTUAL: [u8; PAGE] = positions(0x4b56_4000);
static AMD: [u8; PAGE] = positions(0xc000_0000);
static AMD_K8: [u8; PAGE] = positions(0xc001_0000);
static AMD_F10: [u8; PAGE] = positions(0xc001_1000);

/// The declarations of so many indices in a row.
const PAGE: usize = 0x1000;

/// A page above [`LOW`], and the positions of its declarations.
#[derive(Clone, Copy)]
struct Page {
    number: u32,
    positions: &'static [u8; PAGE],
}

/// The number of none: it is too high.
const NO_PAGE: u32 = u32::MAX;

/// Sends each of [`PAGES`] to a slot of its own; found by trying.
const PAGE_FACTOR: u32 = 0xcc62_3a9b;
const PAGE_BITS: u32 = 3;

/// Where a page is, if it is one of [`PAGES`].
#[inline]
const fn page_slot(number: u32) -> usize {
    (number.wrapping_mul(PAGE_FACTOR) >> (u32::BITS - PAGE_BITS)) as usize
}

const fn positions<const N: usize>(base: u32) -> [u8; N] {
    let mut positions = [0; N];
    let mut at = 0;

    while at < table::REGISTERS.len() {
        let register = &table::REGISTERS[at];
        let mut index = register.first;

        while index >= base && index <= register.last {
            let slot = (index - base) as usize;

            if slot >= N {
                break;
            }
            // Of two declarations the first counts, so that one can stand out from a range.
            if positions[slot] == 0 {
                positions[slot] = at as u8 + 1;
            }
            index += 1;
        }
        at += 1;
    }
    positions
}

/// Finds what is declared for an index, or what holds for those that have no declaration.
#[inline]
pub(crate) fn lookup(index: u32) -> &'static Register {
    let position = match LOW.get(index as usize) {
        Some(&position) => position,
        None => high_position(index),
    };

    &REGISTERS[usize::from(position)]
}

#[inline]
fn high_position(index: u32) -> u8 {
    let number = index / PAGE as u32;
    let page = &PAGES[page_slot(number)];

    if page.number != number {
        return 0;
    }
    page.positions[index as usize % PAGE]
}

impl Register {
    /// Nothing is known of these, yet.
    const fn range(first: u32, last: u32, name: &'static str) -> Self {
        Self {
            first,
            last,
            name,
            vendor: VendorSet::NONE,
            gate: Gate::None,
            read_guard: Guard::None,
            read: Read::Unsupported,
            write_guard: Guard::None,
            write: Write::Unsupported,
            listed: Listed::No,
            model: Model::No,
            gates_reads: false,
            gates_writes: false,
            plain_read: false,
            plain_write: false,
            list_position: None,
            is_xstate: false,
        }
    }

    const fn nr_listed(&self) -> u16 {
        match self.listed {
            Listed::No => 0,
            _ => (self.last - self.first) as u16 + 1,
        }
    }

    /// Works out what follows from the rest, and from how many are listed before it.
    const fn finished(mut self, listed_before: u16) -> Self {
        let reads = VendorSet::AMD_READ | VendorSet::INTEL_READ;
        let writes = VendorSet::AMD_WRITE | VendorSet::INTEL_WRITE;

        self.gates_reads = !matches!(
            self.gate,
            Gate::None | Gate::Canonical | Gate::MakeCanonical
        );
        self.gates_writes = !matches!(self.gate, Gate::None);
        self.plain_read = !self.gates_reads
            && matches!(self.read_guard, Guard::None)
            && self.vendor.0 & reads == 0;
        self.plain_write = !self.gates_writes
            && matches!(self.write_guard, Guard::None)
            && self.vendor.0 & writes == 0;
        self.is_xstate = matches!(self.read, Read::Xstate);
        if self.nr_listed() != 0 {
            self.list_position = Some(listed_before);
        }
        self
    }

    const fn msr(index: u32, name: &'static str) -> Self {
        Self::range(index, index, name)
    }

    /// The vendor modules have it, each for the accesses that the set says.
    const fn vendor(mut self, set: u8) -> Self {
        self.vendor = VendorSet(set);
        self
    }

    const fn gate(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// Who may access it, in both ways.
    const fn guard(mut self, guard: Guard) -> Self {
        self.read_guard = guard;
        self.write_guard = guard;
        self
    }

    const fn write_guard(mut self, guard: Guard) -> Self {
        self.write_guard = guard;
        self
    }

    const fn read(mut self, read: Read) -> Self {
        self.read = read;
        self
    }

    const fn write(mut self, write: Write) -> Self {
        self.write = write;
        self
    }

    /// It is what was stored.
    const fn field(self, field: Field) -> Self {
        self.read(Read::Field(field)).write(Write::Field(field))
    }

    const fn both(self, read: Read, write: Write) -> Self {
        self.read(read).write(write)
    }

    const fn listed(mut self, listed: Listed) -> Self {
        self.listed = listed;
        self
    }

    const fn saved(self) -> Self {
        self.listed(Listed::Saved(Condition::Always))
    }

    const fn saved_if(self, condition: Condition) -> Self {
        self.listed(Listed::Saved(condition))
    }

    const fn saved_pmu(self) -> Self {
        self.listed(Listed::SavedPmu(Condition::Always))
    }

    const fn saved_pmu_if(self, condition: Condition) -> Self {
        self.listed(Listed::SavedPmu(condition))
    }

    const fn emulated(self) -> Self {
        self.listed(Listed::Emulated)
    }

    const fn model(mut self, model: Model) -> Self {
        self.model = model;
        self
    }

    /// Whether the MSR describes the model, and can't change once the vCPU has run.
    #[inline]
    pub(crate) fn is_immutable(&self) -> bool {
        matches!(self.model, Model::Fixed(_))
    }
}
