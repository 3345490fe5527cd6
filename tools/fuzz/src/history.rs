// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is done to a pair of VMs, as it is kept in the corpus: one line of JSON for each history.

use std::fmt;

use kvm_msr_guest::Cpuid;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;

use crate::direct;

/// The number of a VM's vCPUs.
pub const VCPUS: usize = 2;

/// User space can set EFER to what no CPU could have while it is in long mode.
const EFER: u32 = 0xc000_0080;

/// A number, as hexadecimal text in JSON, where numbers have only 53 bits for some readers.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hex(pub u64);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(from)?;

        u64::from_str_radix(text, 16)
            .map(Hex)
            .map_err(D::Error::custom)
    }
}

/// A pair of VMs, and what is done to both.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct History {
    /// How the VMs are made.
    pub setup: Setup,
    /// What happens to them, one after the other.
    pub steps: Vec<Step>,
}

/// How a VM is made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Setup {
    /// The vCPUs' CPUID.
    pub cpuid: Model,
    /// Whether there are an irqchip and local APICs in the kernel.
    pub irqchip: bool,
    /// Whether vCPU 0 runs a guest of its own.
    pub nested: Nesting,
    /// Whether `/dev/kvm-msr` sets policies, learns and counts. It then intercepts MSRs that the guest
    /// could access directly, which shows if the vCPU is in no state that a CPU could be in.
    pub overlay: bool,
    /// The first argument of KVM_ENABLE_CAP of some capabilities, before there are vCPUs.
    pub capabilities: Vec<(u32, Hex)>,
}

/// A guest of the guest.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Nesting {
    /// There is none.
    No,
    /// There is one.
    Plain,
    /// It has nested paging on SVM, and a shadow VMCS on VMX.
    More,
}

/// A vCPU's CPUID: one of the sweep's, or none, and bits that differ from it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Model {
    /// The name of a [`Cpuid`].
    pub base: Base,
    /// Function, index, register (EAX is 0) and the bits that are inverted.
    pub inverted: Vec<(Hex, u32, u8, Hex)>,
}

/// See [`Cpuid`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[allow(missing_docs)]
pub enum Base {
    Full,
    Empty,
    NoPmu,
    OtherVendor,
}

impl Base {
    /// All of them, the one with all features first.
    pub const ALL: [Base; 4] = [Base::Full, Base::Empty, Base::NoPmu, Base::OtherVendor];
}

impl From<Base> for Cpuid {
    fn from(base: Base) -> Self {
        match base {
            Base::Full => Cpuid::Full,
            Base::Empty => Cpuid::Empty,
            Base::NoPmu => Cpuid::NoPmu,
            Base::OtherVendor => Cpuid::OtherVendor,
        }
    }
}

/// A value to write.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Value {
    /// This one.
    Is(Hex),
    /// The MSR's value, with these bits inverted.
    Invert(Hex),
    /// The value of another of the vCPU's MSRs.
    Of(Hex),
}

/// How user space answers an exit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Answer {
    /// With a value.
    Value(Hex),
    /// With an error: the guest gets #GP.
    Error,
    /// Not before the vCPU's next step, and then with an error code of 0 and the value of the exit.
    Later,
}

/// One step, on one vCPU or on the VM.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// The vCPU. Steps of the VM ignore it.
    pub vcpu: usize,
    /// What is done.
    pub action: Action,
}

/// A range of a filter. Its bitmap has all bits alike, except for some.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct FilterRange {
    pub flags: u32,
    pub base: Hex,
    pub nmsrs: u32,
    pub allow: bool,
    pub inverted: Vec<u32>,
}

/// What a step does.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Action {
    /// KVM_GET_MSRS
    GetMsrs(Vec<Hex>),
    /// KVM_SET_MSRS
    SetMsrs(Vec<(Hex, Value)>),
    /// KVM_GET_ONE_REG
    GetOneReg(Hex),
    /// KVM_SET_ONE_REG
    SetOneReg(Hex, Hex),
    /// RDMSR in the guest
    Read {
        /// MSR index
        index: Hex,
        /// By KVM's emulator
        emulated: bool,
        /// Of an exit to user space
        answer: Answer,
    },
    /// WRMSR in the guest
    Write {
        /// MSR index
        index: Hex,
        /// EDX:EAX
        value: Value,
        /// By KVM's emulator
        emulated: bool,
        /// Of an exit to user space
        answer: Answer,
    },
    /// KVM_X86_SET_MSR_FILTER
    Filter {
        /// The flags, KVM_MSR_FILTER_DEFAULT_DENY or not
        deny: bool,
        /// The ranges
        ranges: Vec<FilterRange>,
    },
    /// KVM_ENABLE_CAP of the VM
    VmCapability(u32, Hex),
    /// KVM_ENABLE_CAP of a vCPU
    VcpuCapability(u32, Hex),
    /// KVM_SET_CPUID2
    Cpuid(Model),
    /// KVM_SET_SREGS, with bits that are inverted
    Sregs {
        /// CR0
        cr0: Hex,
        /// CR4
        cr4: Hex,
        /// EFER
        efer: Hex,
        /// IA32_APIC_BASE
        apic_base: Hex,
    },
    /// KVM_SET_VCPU_EVENTS, with some bits that are inverted
    Events(Event),
    /// KVM_SMI
    Smi,
    /// KVM_NMI
    Nmi,
    /// INIT, by KVM_SET_MP_STATE
    Init,
    /// The vCPU's registers again as at the start, but not its MSRs
    Start,
    /// KVM_X86_SETUP_MCE
    SetupMce(Hex),
    /// KVM_X86_SET_MCE
    Mce {
        /// The number of the bank
        bank: u8,
        /// IA32_MCi_STATUS
        status: Hex,
        /// IA32_MCG_STATUS
        mcg_status: Hex,
    },
    /// KVM_SET_TSC_KHZ
    TscKhz(u32),
    /// KVM_XEN_HVM_CONFIG
    Xen {
        /// Flags
        flags: u32,
        /// The MSR that makes a hypercall page
        msr: Hex,
    },
    /// Runs vCPU 0, on which L1 and L2 run, until the next stop
    Run,
    /// KVM_GET_NESTED_STATE, with a size
    GetNested(u32),
    /// KVM_SET_NESTED_STATE: the present state with some bytes changed, and its size
    SetNested {
        /// Offsets, and the bits that are inverted there
        inverted: Vec<(u16, u8)>,
        /// What is added to the size
        more: i32,
    },
    /// A policy of the engine's that allows everything in some ranges
    Policy(Vec<(Hex, Hex)>),
    /// The engine starts or stops learning
    Learn(bool),
    /// The engine starts or stops its statistics
    Stats(bool),
    /// A batch of the engine's, and for C a call for each of its entries
    Batch(Vec<(Hex, Option<Value>)>),
    /// Actions on all vCPUs at the same time, each vCPU with a thread of its own
    Together(Vec<Vec<Action>>),
    /// The VM's whole state is compared
    Compare,
}

/// A change of `struct kvm_vcpu_events`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Event {
    /// An NMI is pending.
    NmiPending,
    /// NMIs are masked.
    NmiMasked,
    /// The vCPU is in SMM.
    Smm,
    /// An SMI is pending.
    SmiPending,
    /// An exception, by its vector, is injected.
    Exception(u8),
    /// A triple fault is pending.
    TripleFault,
}

impl Action {
    /// The number of compared outcomes.
    pub fn outcomes(&self) -> u64 {
        match self {
            Action::Together(lists) => lists.iter().map(|list| list.len() as u64).sum(),
            _ => 1,
        }
    }

    /// Whether a VM of this setup can have the action.
    pub fn is_for(&self, setup: &Setup) -> bool {
        match self {
            Action::Policy(_) | Action::Learn(_) | Action::Stats(_) => setup.overlay,
            Action::Sregs { .. } | Action::Events(_) | Action::Smi => !setup.overlay,
            Action::SetMsrs(_) | Action::Batch(_) | Action::SetOneReg(..) if setup.overlay => {
                !self.indices().contains(&EFER)
            }
            Action::Read { emulated, .. } | Action::Write { emulated, .. } if setup.overlay => {
                *emulated || !self.indices().iter().any(|&index| direct::depends(index))
            }
            // L1 and L2 use page tables that KVM may have to protect against the other vCPU's writes.
            Action::Together(lists) => {
                setup.nested == Nesting::No
                    && lists.iter().flatten().all(|action| action.is_for(setup))
            }
            _ => true,
        }
    }

    /// The MSRs that are accessed.
    pub fn indices(&self) -> Vec<u32> {
        let index = |index: &Hex| index.0 as u32;

        match self {
            Action::GetMsrs(indices) => indices.iter().map(index).collect(),
            Action::SetMsrs(entries) => entries.iter().map(|(of, _)| index(of)).collect(),
            Action::Batch(entries) => entries.iter().map(|(of, _)| index(of)).collect(),
            Action::Read { index: of, .. } | Action::Write { index: of, .. } => vec![index(of)],
            Action::GetOneReg(id) | Action::SetOneReg(id, _) => vec![index(id)],
            _ => Vec::new(),
        }
    }
}
