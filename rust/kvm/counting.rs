// SPDX-License-Identifier: GPL-2.0

//! The counters of `KMSR_STATS`.
//!
//! vCPUs increment them without locks. The CPU makes each increment in one step, so none is lost,
//! but a reader can see an access in one counter and not yet in another.

use super::{
    Tsc,
    Vcpu, //
};
use crate::engine::{
    access::Access,
    registers::Location,
    stats::{
        Claim,
        Event,
        Row,
        Rows,
        NR_BUCKETS,
        NR_EVENTS,
        NR_ROWS, //
    },
};
use core::{
    arch::asm,
    ptr::NonNull, //
};
use kernel::{
    alloc::flags::__GFP_ZERO,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
};

/// A counter that CPUs increment at the same time.
#[repr(transparent)]
pub(crate) struct Count(Atomic<u64>);

impl Count {
    /// Adds 1.
    fn increment(&self) {
        self.0.add(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Claim for Count {
    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn claim(&self, value: u64) -> u64 {
        match self.0.cmpxchg(0, value, Full) {
            Ok(old) | Err(old) => old,
        }
    }
}

/// The histogram of one kind of access to an MSR.
#[repr(transparent)]
pub(crate) struct Histogram([Count; NR_BUCKETS]);

impl Histogram {
    /// Adds an access that took a number of cycles: `2^i` to `2^(i + 1) - 1` cycles are in bucket `i`,
    /// and 0 cycles in bucket 0.
    #[inline(always)]
    pub(crate) fn add(&self, cycles: u32) {
        // As `self.0[(cycles | 1).ilog2() as usize].increment()`, which takes a function call. If there
        // are 0 cycles, BSR does not change the register, so that it is 0: the kernel's fls() relies
        // on this, too.
        // SAFETY: The position of a bit of `cycles` is below 32, and there are as many counters. The
        // instructions change only a counter, in one step, besides the register and the flags.
        unsafe {
            asm!(
                "bsr {cycles:e}, {cycles:e}",
                "lock inc qword ptr [{counts} + 8 * {cycles}]",
                cycles = inout(reg) u64::from(cycles) => _,
                counts = in(reg) self.0.as_ptr(),
                options(nostack),
            );
        }
    }

    /// Returns the bucket in which an access of this duration is counted.
    #[cfg(CONFIG_KVM_MSR_KUNIT_TEST)]
    pub(crate) fn bucket(cycles: u32) -> Option<usize> {
        let histogram = Self([const { Count(Atomic::new(0)) }; NR_BUCKETS]);

        histogram.add(cycles);
        histogram.0.iter().position(|count| count.get() == 1)
    }
}

/// An access whose duration is measured.
// In this order, functions get the start in EDX, where RDTSC leaves nothing else.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Timer<'a> {
    start: Tsc,
    histogram: &'a Histogram,
}

impl<'a> Timer<'a> {
    /// Starts an access.
    #[inline(always)]
    pub(crate) fn start(histogram: &'a Histogram) -> Self {
        Self {
            histogram,
            start: Tsc::now(),
        }
    }

    /// Ends the access, and counts it.
    #[inline(always)]
    pub(crate) fn stop(self) {
        self.histogram.add(self.start.elapsed());
    }
}

/// The histograms of one vCPU, or of some that share them: for each [`Access`] and [`Row`].
struct Histograms([RowHistograms; 2]);

type RowHistograms = [Histogram; NR_ROWS];

/// The maximum number of [`Histograms`]. With more vCPUs, some share them. So the memory is bounded,
/// to 4 MiB, and the vCPUs that share a counter's cache line are few.
const MAX_SHARES: usize = 32;

/// The number of values that a vCPU's number has in [`Finder`].
const NR_SHARES: usize = 256;

/// What a value of this type consists of is [`Count`]s, for which all zeros is valid.
///
/// # Safety
///
/// As above.
unsafe trait Counters: Sized {
    /// Allocates counters that are 0.
    fn zeroed() -> Result<KVBox<Self>> {
        let counters = KVBox::new_uninit(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;

        // SAFETY: The memory is zeroed, and all zeros is valid, as the implementer promises.
        Ok(unsafe { counters.assume_init() })
    }
}

// SAFETY: It is an array of counters.
unsafe impl Counters for Histograms {}
// SAFETY: It is an array of counters.
unsafe impl Counters for Rows<Count> {}
// SAFETY: It is an array of counters.
unsafe impl Counters for Events {}

/// The counters of [`Event`]s, which all vCPUs share: for each [`Access`] and [`Row`].
struct Events([[[Count; NR_EVENTS]; NR_ROWS]; 2]);

/// The statistics of a VM, from start to stop.
pub(crate) struct Stats {
    rows: KVBox<Rows<Count>>,
    events: KVBox<Events>,
    histograms: KVec<KVBox<Histograms>>,
}

/// The statistics of one kind of access to an MSR.
pub(crate) struct Totals {
    /// For each kind of [`Event`].
    pub(crate) events: [u64; NR_EVENTS],
    /// For each bucket.
    pub(crate) buckets: [u64; NR_BUCKETS],
}

impl Totals {
    /// The number of accesses.
    pub(crate) fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum: u64, count| sum.wrapping_add(*count))
    }
}

impl Stats {
    /// Allocates counters for this number of vCPUs. More vCPUs can use them, too.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub(crate) fn new(nr_vcpus: usize) -> Result<Self> {
        let mut histograms = KVec::new();

        for _ in 0..nr_vcpus.clamp(1, MAX_SHARES) {
            histograms.push(Histograms::zeroed()?, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            rows: Rows::zeroed()?,
            events: Events::zeroed()?,
            histograms,
        })
    }

    /// Counts an event of an access.
    #[cold]
    pub(crate) fn count(&self, index: u32, access: Access, event: Event) {
        let row = self.rows.of(index);

        self.events.0[access as usize][row.position()][event as usize].increment();
    }

    /// The rows in use, and the index of each one's MSR.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Row, u32)> + '_ {
        self.rows.used()
    }

    /// Adds up what all vCPUs have counted in a row.
    pub(crate) fn totals(&self, row: Row, access: Access) -> Totals {
        let events = &self.events.0[access as usize][row.position()];
        let mut totals = Totals {
            events: core::array::from_fn(|event| events[event].get()),
            buckets: [0; NR_BUCKETS],
        };

        for histograms in &self.histograms {
            let histogram = &histograms.0[access as usize][row.position()];

            for (total, count) in totals.buckets.iter_mut().zip(&histogram.0) {
                *total = total.wrapping_add(count.get());
            }
        }
        totals
    }
}

/// Finds quickly where a vCPU counts an access.
///
/// # Invariants
///
/// If `map` has anything but 0, `shares` are pointers to histograms that live as long as this.
#[repr(C)]
struct Finder {
    /// For each [`Access`] and [`Location`], the row ([`Row::into_raw`]), or 0 if this is not known
    /// yet. Only accesses that need nothing but the filter and KVM get their rows from here.
    map: [[Atomic<i8>; Location::COUNT]; 2],
    /// Where a vCPU counts, for each [`Access`], by the low byte of the vCPU's number.
    shares: [[*const RowHistograms; NR_SHARES]; 2],
}

/// Finds nothing.
static EMPTY: Finder = Finder {
    map: [const { [const { Atomic::new(0) }; Location::COUNT] }; 2],
    shares: [[core::ptr::null(); NR_SHARES]; 2],
};

// SAFETY: The pointers are to counters, which any CPU may use.
unsafe impl Send for Finder {}
// SAFETY: As above.
unsafe impl Sync for Finder {}

/// What an overlay has to count accesses.
///
/// # Invariants
///
/// `finder` points to [`EMPTY`], or to a finder that `owned` has, and whose histograms `owned` has.
pub(crate) struct Counting {
    // A pointer in any case, so that the short way of an access has no branch for it.
    finder: NonNull<Finder>,
    owned: Option<(KVBox<Finder>, Arc<Stats>)>,
}

// SAFETY: The pointer is to a `Finder`, which any CPU may use.
unsafe impl Send for Counting {}
// SAFETY: As above.
unsafe impl Sync for Counting {}

impl Counting {
    /// For an overlay without statistics.
    pub(crate) const OFF: Self = Self {
        finder: NonNull::from_ref(&EMPTY),
        owned: None,
    };

    /// Allocates what is needed to count accesses.
    ///
    /// # Errors
    ///
    /// `ENOMEM`
    pub(crate) fn new(stats: Arc<Stats>) -> Result<Self> {
        let finder = KVBox::<Finder>::new_uninit(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        // SAFETY: The memory is zeroed, and all zeros is valid.
        // INVARIANT: The map is all zeros.
        let mut finder = unsafe { finder.assume_init() };

        // INVARIANT: The histograms do not move, and `owned` keeps them.
        for access in [Access::Read, Access::Write] {
            let shares = &mut finder.shares[access as usize];

            for (share, histograms) in shares.iter_mut().zip(stats.histograms.iter().cycle()) {
                *share = &raw const histograms.0[access as usize];
            }
        }
        // INVARIANT: The box does not move the finder.
        Ok(Self {
            finder: NonNull::from_ref(&*finder),
            owned: Some((finder, stats)),
        })
    }

    /// The statistics, if there are any.
    pub(crate) fn stats(&self) -> Option<&Stats> {
        self.owned.as_ref().map(|(_, stats)| &**stats)
    }

    /// Finds where to count an access that needs nothing but the filter and KVM. Returns [`None`]
    /// if it may need more, or is the first one to its MSR, or if there are no statistics.
    #[inline(always)]
    pub(crate) fn find(
        &self,
        vcpu: &Vcpu,
        location: Location,
        access: Access,
    ) -> Option<&Histogram> {
        // SAFETY: The pointer is valid by the type's invariants.
        let finder = unsafe { self.finder.as_ref() };
        let known = finder.map[access as usize][location.position()].as_ptr();
        // SAFETY: The pointer is to the atomic, which is valid, and all writes to it are atomic.
        let row = Row::from_raw(unsafe { known.read_volatile() }.cast_unsigned())?;

        // SAFETY: The map has a row.
        Some(unsafe { finder.histogram(vcpu, row, access) })
    }

    /// Counts an access that took a number of cycles. If it is `plain`, i.e. needs nothing but the
    /// filter and KVM, [`Self::find`] will find where to count it from now on.
    pub(crate) fn add(&self, vcpu: &Vcpu, index: u32, access: Access, plain: bool, cycles: u32) {
        let Some((finder, stats)) = &self.owned else {
            return;
        };
        let row = stats.rows.of(index);
        let location = Location::of(index);

        if plain && location.is_of(index) {
            let known = &finder.map[access as usize][location.position()];

            known.store(row.into_raw().cast_signed(), Relaxed);
        }
        // SAFETY: `new()` made this finder.
        unsafe { finder.histogram(vcpu, row, access) }.add(cycles);
    }
}

impl Finder {
    /// # Safety
    ///
    /// This must not be [`EMPTY`].
    #[inline(always)]
    unsafe fn histogram(&self, vcpu: &Vcpu, row: Row, access: Access) -> &Histogram {
        // SAFETY: The pointer is to histograms that live as long as this, by the type's invariants.
        let histograms =
            unsafe { &*self.shares[access as usize][usize::from(vcpu.short_number())] };

        &histograms[row.position()]
    }
}
