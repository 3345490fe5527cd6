// SPDX-License-Identifier: GPL-2.0

//! What files of `/dev/kvm-msr` set up for a VM.

use super::{
    nospec::index_nospec,
    Counting,
    Histogram,
    Stats,
    Vcpu, //
};
use crate::engine::{
    access::Access,
    filter::X2APIC,
    learn::{
        Learned,
        Table, //
    },
    policy::{
        Compiled,
        Covered,
        Policy,
        Rule,
        Scratch,
        Storage,
        When, //
    },
    registers::Location,
    stats::Event, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::flags::__GFP_ZERO,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
};

/// A policy in memory of the kernel's.
pub(crate) type VmPolicy = Policy<PolicyMemory>;

/// The memory of a policy.
pub(crate) struct PolicyMemory {
    rules: KVVec<Rule>,
    compiled: KVBox<Compiled>,
}

impl PolicyMemory {
    /// Allocates what a policy needs besides its rules.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub(crate) fn new(rules: KVVec<Rule>) -> Result<Self> {
        let compiled = KVBox::new_uninit(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;

        Ok(Self {
            rules,
            // SAFETY: The memory is zeroed, which is valid, see `Compiled`.
            compiled: unsafe { compiled.assume_init() },
        })
    }
}

/// Allocates the memory that is needed while a policy is compiled.
///
/// # Errors
///
/// `ENOMEM`
pub(crate) fn scratch() -> Result<KVBox<Scratch>> {
    let scratch = KVBox::new_uninit(GFP_KERNEL | __GFP_ZERO)?;

    // SAFETY: The memory is zeroed, which is valid, see `Scratch`.
    Ok(unsafe { scratch.assume_init() })
}

impl Storage for PolicyMemory {
    #[inline]
    fn rules(&self) -> &[Rule] {
        &self.rules
    }

    #[inline]
    fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    fn parts(&mut self) -> (&[Rule], &mut Compiled) {
        (&self.rules, &mut self.compiled)
    }

    #[inline]
    fn rule(&self, position: usize) -> Option<&Rule> {
        if position >= self.rules.len() {
            return None;
        }
        // The check above ensures this already, but the CPU may mispredict it.
        self.rules.get(index_nospec(position, self.rules.len()))
    }
}

/// The records of learning. vCPUs add to them at the same time.
#[pin_data]
pub(crate) struct Learning {
    #[pin]
    pub(crate) table: SpinLock<Table<KVVec<Learned>>>,
}

impl Learning {
    /// Records without contents.
    pub(crate) fn new(table: Table<KVVec<Learned>>) -> impl PinInit<Self> {
        pin_init!(Self {
            table <- kernel::new_spinlock!(table, "Learning::table"),
        })
    }
}

/// What decides over accesses of a VM's guest in addition to its filter, or watches them. A VM has
/// none unless a file of the device has set something up.
///
/// # Invariants
///
/// `judged` points to [`ALL_JUDGED`], or into the memory of `policy`.
pub(crate) struct Overlay {
    /// The policy, if there is one.
    pub(crate) policy: Option<Arc<VmPolicy>>,
    /// Where accesses are recorded, if the guest is being watched.
    pub(crate) learning: Option<Arc<Learning>>,
    /// The accesses that are not [`Way::Plain`].
    // A pointer in any case, so that the lookup has no branch for it.
    judged: NonNull<Covered>,
    /// Whether there are only statistics.
    // A member, as the fast path can test it by one instruction.
    pub(crate) only_counts: bool,
    /// Where accesses are counted, if there are statistics.
    pub(crate) counting: Counting,
}

// SAFETY: The pointer is to memory that is not changed, and all other members can be sent.
unsafe impl Send for Overlay {}
// SAFETY: The pointer is to memory that is not changed, and all other members can be shared.
unsafe impl Sync for Overlay {}

static ALL_JUDGED: Covered = Covered::ALL;

/// What an access needs.
pub(crate) enum Way<'a> {
    /// Only the filter and KVM.
    Plain,
    /// Only the filter and KVM, and it is counted in this histogram.
    Counted(&'a Histogram),
    /// It may need more.
    Judged,
}

impl Overlay {
    /// Whether a vCPU may access an MSR without VM-exits, as far as the overlay is concerned.
    pub(crate) fn passes_through(&self, index: u32, access: Access) -> bool {
        // The filter does not apply to the x2APIC's MSRs either.
        let is_unwatched = X2APIC.contains(&index) || UNWATCHED.contains(&index);

        (self.learning.is_none() || is_unwatched) && !self.has_rule(index, access)
    }

    /// Whether an access, besides being counted, needs only the filter and KVM. Rules for MSRs that
    /// KVM does not have come after KVM.
    pub(crate) fn is_plain(&self, index: u32, access: Access) -> bool {
        self.learning.is_none() && !self.has_rule(index, access)
    }

    /// Whether a rule covers an access before KVM handles it.
    fn has_rule(&self, index: u32, access: Access) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.action(When::Always, access, index).is_some())
    }

    /// Returns what an access needs, given the location of its index.
    #[inline(always)]
    pub(crate) fn way(
        &self,
        vcpu: &Vcpu,
        location: Location,
        index: u32,
        access: Access,
    ) -> Way<'_> {
        if !location.is_of(index) {
            return Way::Judged;
        }
        if let Some(histogram) = self.counting.find(vcpu, location, access) {
            return Way::Counted(histogram);
        }
        // SAFETY: The pointer is valid by the type's invariants.
        if unsafe { self.judged.as_ref() }.has(location, index, access) {
            Way::Judged
        } else {
            Way::Plain
        }
    }

    /// Counts an event of an access, if there are statistics.
    #[cold]
    #[inline(never)]
    pub(crate) fn note(&self, index: u32, access: Access, event: Event) {
        if let Some(stats) = self.counting.stats() {
            stats.count(index, access, event);
        }
    }
}

/// MSRs that a guest can be given access to, but that KVM can't read for it. Interception would
/// turn reads into #GP, so these are not watched: `IA32_MPERF`, `IA32_APERF`, and the residency
/// counters of C-states (`KVM_CAP_X86_DISABLE_EXITS`).
const UNWATCHED: [u32; 6] = [0xe7, 0xe8, 0x3fc, 0x3fd, 0x3fe, 0x660];

/// An identity of an open file.
pub(crate) type FileId = usize;

/// What a file of the device watches of the guest's accesses, or has watched.
#[derive(Clone)]
pub(crate) struct Watch<R> {
    /// The file.
    pub(crate) file: FileId,
    /// What was recorded.
    pub(crate) records: R,
    /// Whether accesses are recorded now.
    pub(crate) is_on: bool,
}

impl<R: Clone> Watch<R> {
    /// The records, if accesses are recorded now.
    fn current(&self) -> Option<R> {
        self.is_on.then(|| self.records.clone())
    }
}

/// What files of the device have claimed of a VM.
#[derive(Clone, Default)]
pub(crate) struct Claims {
    /// The file that has the right to set a policy.
    pub(crate) policy_file: Option<FileId>,
    pub(crate) policy: Option<Arc<VmPolicy>>,
    /// `KMSR_POLICY_*` of the policy.
    pub(crate) policy_flags: u32,
    pub(crate) learning: Option<Watch<Arc<Learning>>>,
    pub(crate) stats: Option<Watch<Arc<Stats>>>,
}

impl Claims {
    /// Allocates the overlay that these claims ask for, unless it would be empty.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub(super) fn overlay(&self) -> Result<Option<KBox<Overlay>>> {
        let policy = self.policy.clone();
        let learning = self.learning.as_ref().and_then(Watch::current);
        let stats = self.stats.as_ref().and_then(Watch::current);

        if policy.is_none() && learning.is_none() && stats.is_none() {
            return Ok(None);
        }
        let judged = match &policy {
            Some(policy) if learning.is_none() && stats.is_none() => policy.covered(When::Always),
            _ => &ALL_JUDGED,
        };
        // INVARIANT: The overlay keeps the policy, whose memory does not move.
        let overlay = Overlay {
            only_counts: policy.is_none() && learning.is_none(),
            judged: NonNull::from_ref(judged),
            policy,
            learning,
            counting: match stats {
                Some(stats) => Counting::new(stats)?,
                None => Counting::OFF,
            },
        };

        Ok(Some(KBox::new(overlay, GFP_KERNEL_ACCOUNT)?))
    }
}
