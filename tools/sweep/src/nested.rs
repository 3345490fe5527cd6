// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Nested state: starting from several live states, compares how C and the engine handle any state
//! that user space may give them.

use std::fmt;

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::KVM_CAP_DISABLE_QUIRKS2;
use kvm_bindings::KVM_CAP_HYPERV_ENLIGHTENED_VMCS;
use kvm_bindings::KVM_CAP_X86_SMM;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Options;
use kvm_msr_guest::nested::State;
use kvm_msr_guest::nested::Stop;
use kvm_msr_guest::nested::Vendor;
use kvm_msr_guest::nested::layout;

use crate::cases::Sweep;

/// Size of `struct kvm_nested_state` without data, in bytes.
const HEADER: usize = 128;
/// The header, and the two pages that may follow it.
const LARGEST: usize = HEADER + 2 * PAGE;

/// Flags of the header.
const GUEST_MODE: u16 = 1 << 0;
const RUN_PENDING: u16 = 1 << 1;
const EVMCS: u16 = 1 << 2;
const MTF_PENDING: u16 = 1 << 3;
const GIF_SET: u16 = 1 << 8;

/// KVM_X86_QUIRK_NESTED_SVM_SHARED_PAT, which kvm-bindings lacks.
const QUIRK_SHARED_PAT: u64 = 1 << 11;

/// The live state: the vCPU's state before the comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Live {
    /// The vCPU was never in VMX operation, or only EFER.SVME is set.
    Never,
    /// EFER.SVME is clear.
    NoSvme,
    /// VMX operation without a VMCS.
    Enabled,
    /// The same, with enlightened VMCSs enabled by user space.
    Evmcs,
    /// A VMCS is current.
    Loaded,
    /// L2 runs.
    L2,
    /// L2 runs, with a shadow VMCS.
    Shadow,
    /// L2 runs, with nested paging and a PAT of its own.
    NestedPaging,
    /// L2 runs, and user space set a CR3 that can't be loaded. L2 does not use paging.
    IllegalCr3,
    /// L2 is about to run.
    RunPending,
    /// L1 runs again.
    BackInL1,
    /// L1 got an SMI.
    SmmFromL1,
    /// L2 got an SMI.
    SmmFromL2,
    /// L1 got an SMI, and user space set EFER.SVME, which the SMI clears.
    SmmWithSvme,
}

impl Live {
    fn all(vendor: Vendor) -> &'static [Live] {
        match vendor {
            Vendor::Vmx => &[
                Live::Never,
                Live::Enabled,
                Live::Evmcs,
                Live::Loaded,
                Live::L2,
                Live::Shadow,
                Live::RunPending,
                Live::BackInL1,
                Live::SmmFromL1,
                Live::SmmFromL2,
            ],
            Vendor::Svm => &[
                Live::Never,
                Live::NoSvme,
                Live::Loaded,
                Live::L2,
                Live::NestedPaging,
                Live::IllegalCr3,
                Live::RunPending,
                Live::BackInL1,
                Live::SmmFromL1,
                Live::SmmFromL2,
                Live::SmmWithSvme,
            ],
        }
    }

    /// Whether KVM is built with what it takes.
    fn is_possible(self, kvm: &Kvm) -> bool {
        let needed = match self {
            Live::SmmFromL1 | Live::SmmFromL2 | Live::SmmWithSvme => KVM_CAP_X86_SMM,
            Live::Evmcs => KVM_CAP_HYPERV_ENLIGHTENED_VMCS,
            _ => return true,
        };

        kvm.check_extension_raw(needed.into()) > 0
    }

    /// Brings a new guest there.
    fn reach(self, kvm: &Kvm, engine: Engine) -> Result<Nested> {
        let options = Options {
            shadow: self == Live::Shadow,
            nested_paging: self == Live::NestedPaging,
            ..Options::new(engine)
        };
        let mut guest = Nested::new(kvm, options)?;

        match self {
            Live::Never => (),
            Live::NoSvme => {
                let mut sregs = guest.vcpu().get_sregs()?;

                sregs.efer &= !layout::EFER_SVME;
                guest.vcpu().set_sregs(&sregs)?;
            }
            Live::Enabled => guest.run_to(Stop::Enabled)?,
            Live::Evmcs => {
                let mut version = Box::new(0u16);
                let address = (&raw mut *version).expose_provenance() as u64;

                ioctl::enable_cap(guest.vcpu(), KVM_CAP_HYPERV_ENLIGHTENED_VMCS, 0, address)?;
                guest.run_to(Stop::Enabled)?;
            }
            Live::Loaded => guest.run_to(Stop::Loaded)?,
            Live::L2 | Live::Shadow | Live::RunPending => guest.run_to(Stop::L2)?,
            Live::NestedPaging => {
                ioctl::enable_cap(guest.vm(), KVM_CAP_DISABLE_QUIRKS2, 0, QUIRK_SHARED_PAT)?;
                guest.run_to(Stop::L2)?;
            }
            Live::IllegalCr3 => {
                guest.run_to(Stop::L2)?;
                let mut sregs = guest.vcpu().get_sregs()?;
                sregs.cr0 &= !layout::CR0_PG;
                sregs.efer &= !layout::EFER;
                sregs.cs.l = 0;
                sregs.cr3 = 1 << 60;
                guest.vcpu().set_sregs(&sregs)?;
            }
            Live::BackInL1 => {
                guest.run_to(Stop::L2)?;
                guest.run_to(guest.exit_to_l1())?;
            }
            Live::SmmFromL1 => {
                guest.run_to(Stop::L2)?;
                guest.run_to(guest.exit_to_l1())?;
                guest.enter_smm()?;
            }
            Live::SmmWithSvme => {
                guest.run_to(Stop::L2)?;
                guest.run_to(guest.exit_to_l1())?;
                guest.enter_smm()?;
                let mut sregs = guest.vcpu().get_sregs()?;
                sregs.efer |= layout::EFER_SVME;
                guest.vcpu().set_sregs(&sregs)?;
            }
            Live::SmmFromL2 => {
                guest.run_to(Stop::L2)?;
                guest.enter_smm()?;
            }
        }
        if self == Live::RunPending {
            // L2's first instruction runs without an exit after L2 was entered, so user space sets
            // the flag.
            let mut state = KvmNestedStateBuffer::empty();

            guest.vcpu().nested_state(&mut state)?;
            state.flags |= RUN_PENDING;
            guest.vcpu().set_nested_state(&state)?;
        }
        Ok(guest)
    }
}

/// User memory of which only the first bytes are accessible.
struct Window(Mapping);

/// The result of KVM_GET_NESTED_STATE, and the bytes that it wrote.
#[derive(Clone, Eq, PartialEq)]
struct Got {
    result: Result<i32, Errno>,
    bytes: Vec<u8>,
}

impl Window {
    const FILL: u8 = 0x5a;

    fn new() -> Result<Self> {
        Ok(Window(Mapping::new(LARGEST).context("map user memory")?))
    }

    /// Gets the state with a size field of `room`, into memory of which `mapped` bytes are
    /// accessible.
    fn get(&mut self, guest: &Nested, room: u32, mapped: usize) -> Got {
        let start = self.0.length() - mapped;
        let mut bytes = vec![Self::FILL; mapped];

        for (to, from) in bytes.iter_mut().skip(4).zip(room.to_le_bytes()) {
            *to = from;
        }
        self.0.write(start, &bytes);
        let result = ioctl::get_nested_state(guest.vcpu(), self.0.at(start));
        Got {
            result,
            bytes: self.0.read(start, mapped),
        }
    }

    /// Gets the whole state.
    fn get_all(&mut self, guest: &Nested) -> Got {
        self.get(guest, LARGEST as u32, LARGEST)
    }

    /// Sets the state from memory of which `mapped` bytes are accessible.
    fn set(&mut self, guest: &Nested, state: &[u8], mapped: usize) -> Result<i32, Errno> {
        let start = self.0.length() - mapped;

        self.0.write(start, &state[..mapped.min(state.len())]);
        ioctl::set_nested_state(guest.vcpu(), self.0.at(start))
    }
}

impl Got {
    /// Clears the deadline of the VMX-preemption timer.
    fn forget_deadline(&mut self) {
        if Image::FORMAT_VMX == self.bytes[2] && self.bytes[28] & 1 != 0 {
            self.bytes[32..40].fill(0);
        }
    }
}

/// The result, and the number of bytes that were written.
impl fmt::Debug for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self.bytes.iter().filter(|&&byte| byte != Window::FILL);

        write!(f, "{:?}, {} bytes written", self.result, written.count())
    }
}

/// A state to set, as bytes.
#[derive(Clone)]
struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    const FORMAT_VMX: u8 = 0;

    /// Whether the deadline of the VMX-preemption timer is valid.
    fn has_deadline(&self) -> bool {
        self.word(2) >> 32 & 1 != 0
    }

    fn flags(&self) -> u16 {
        u16::from_le_bytes([self.0[0], self.0[1]])
    }

    /// Whether L2 runs.
    fn is_in_l2(&self) -> bool {
        self.flags() & GUEST_MODE != 0
    }

    fn with_flags(mut self, flags: u16) -> Self {
        self.put(0, &flags.to_le_bytes());
        self
    }

    fn with_format(mut self, format: u16) -> Self {
        self.put(2, &format.to_le_bytes());
        self
    }

    fn with_size(mut self, size: u32) -> Self {
        self.put(4, &size.to_le_bytes());
        self
    }

    /// Sets word `n` of the vendor's part of the header.
    fn with_word(mut self, n: usize, word: u64) -> Self {
        self.put(8 + 8 * n, &word.to_le_bytes());
        self
    }

    fn word(&self, n: usize) -> u64 {
        let at = 8 + 8 * n;

        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes"))
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = u64::from_le_bytes(self.0[..8].try_into().expect("8 bytes"));

        write!(
            f,
            "flags {:#x}, format {}, size {:#x}, then {:#x} {:#x} {:#x} {:#x}",
            head as u16,
            (head >> 16) as u16,
            head >> 32,
            self.word(0),
            self.word(1),
            self.word(2),
            self.word(3),
        )
    }
}

/// Two guests in the same live state, one of each engine.
struct Stage<'a> {
    kvm: &'a Kvm,
    live: Live,
    guests: [Nested; 2],
    states: [State; 2],
    window: Window,
    /// The live state, as C returns it.
    image: Image,
    /// The same; if L2 does not run in it, the live state in which it runs.
    in_l2: Image,
}

impl<'a> Stage<'a> {
    fn new(kvm: &'a Kvm, engines: [Engine; 2], live: Live) -> Result<Self> {
        // In Bochs, the first guest in SMM leaves the CPU with NMIs blocked. The next ones find it
        // so.
        drop(live.reach(kvm, engines[0])?);
        let guests = [live.reach(kvm, engines[0])?, live.reach(kvm, engines[1])?];
        let states = [
            State::save(guests[0].vcpu())?,
            State::save(guests[1].vcpu())?,
        ];
        let mut window = Window::new()?;
        let image = Image(window.get_all(&guests[0]).bytes);
        // After L2 ran, the first get copies rarely used fields of vmcs02 to vmcs12. Both guests get
        // one here: a set frees vmcs02, and a get after that copies from a fresh page whose contents
        // VMX does not define.
        window.get_all(&guests[1]);
        let in_l2 = if image.is_in_l2() {
            image.clone()
        } else {
            Image(window.get_all(&Live::L2.reach(kvm, engines[0])?).bytes)
        };

        Ok(Stage {
            kvm,
            live,
            guests,
            states,
            window,
            image,
            in_l2,
        })
    }

    /// Makes an observation on both guests.
    fn both<T>(&mut self, mut see: impl FnMut(&mut Window, &Nested) -> T) -> [T; 2] {
        let [c, engine] = &self.guests;

        [see(&mut self.window, c), see(&mut self.window, engine)]
    }

    /// Restores the live state on both guests.
    fn reset(&mut self, sweep: &mut Sweep<'_>) -> Result<()> {
        let image = self.image.clone();
        let mut seen = Vec::new();

        for (guest, state) in self.guests.iter().zip(&self.states) {
            // Nested state and the rest of the state depend on each other, so set nested state
            // before and after.
            let first = self.window.set(guest, &image.0, LARGEST);
            state.restore(guest.vcpu())?;
            let second = self.window.set(guest, &image.0, LARGEST);
            seen.push((first, second, self.window.get_all(guest)));
        }
        sweep.same(|| "restore the live state".to_owned(), pair(seen));
        Ok(())
    }

    /// Sets a state, of which `mapped` bytes are accessible, and compares the state after it.
    fn set(&mut self, sweep: &mut Sweep<'_>, image: &Image, mapped: usize) -> Result<()> {
        let set = self.both(|window, guest| window.set(guest, &image.0, mapped));
        let mut got = self.both(|window, guest| window.get_all(guest));
        let untouched = set[0].is_err() && got[0].bytes == self.image.0;
        let what = || {
            if mapped == LARGEST {
                format!("set {image}")
            } else {
                format!("set {image}, of which {mapped:#x} bytes are accessible")
            }
        };

        sweep.same(what, set);
        if !image.has_deadline() {
            // KVM computes it from the TSC.
            got.iter_mut().for_each(Got::forget_deadline);
        }
        let place = difference(&got);
        sweep.same(|| format!("get after {}{place}", what()), got);
        if !untouched {
            let regs = self.both(|_, guest| guest.vcpu().get_regs().ok());
            let sregs = self.both(|_, guest| guest.vcpu().get_sregs().ok());
            sweep.same(|| format!("registers after {}", what()), regs);
            sweep.same(|| format!("segments after {}", what()), sregs);
            self.reset(sweep)?;
        }
        Ok(())
    }

    /// Gets the state with a size field of `room`; `mapped` bytes are accessible.
    fn get(&mut self, sweep: &mut Sweep<'_>, room: u32, mapped: usize) {
        let got = self.both(|window, guest| window.get(guest, room, mapped));
        let place = difference(&got);

        sweep.same(
            || format!("get with size {room:#x}, {mapped:#x} bytes accessible{place}"),
            got,
        );
    }

    /// Sets a state on both guests, and runs them.
    fn go_on(&mut self, sweep: &mut Sweep<'_>, image: &Image) -> Result<()> {
        const STOPS: usize = 4;
        const SECONDS: u32 = 2;

        // L2's code can't run then.
        if self.live == Live::IllegalCr3 {
            return Ok(());
        }
        let set = self.both(|window, guest| window.set(guest, &image.0, LARGEST));
        if set != [Ok(0), Ok(0)] {
            return Ok(());
        }
        for n in 0..STOPS {
            let mut stops = Vec::new();
            for guest in &mut self.guests {
                stops.push(guest.run_for(SECONDS).map_err(|error| error.to_string()));
            }
            let went_on = matches!(
                stops[0],
                Ok(Stop::Enabled | Stop::Loaded | Stop::L2 | Stop::L1(_) | Stop::Smm)
            );
            sweep.same(|| format!("stop {n} after set {image}"), pair(stops));
            if !went_on {
                break;
            }
            let regs = self.both(|_, guest| guest.vcpu().get_regs().ok());
            let counters = self.both(|_, guest| guest.counter());
            sweep.same(|| format!("registers at stop {n} after set {image}"), regs);
            sweep.same(
                || format!("L2's counter at stop {n} after set {image}"),
                counters,
            );
        }
        // The guests have run, so create new ones.
        *self = Stage::new(self.kvm, sweep.engines, self.live)?;
        Ok(())
    }
}

/// The position of the first difference between two results.
fn difference([c, engine]: &[Got; 2]) -> String {
    let place = c.bytes.iter().zip(&engine.bytes).position(|(c, e)| c != e);

    place.map_or_else(String::new, |at| {
        format!(
            ", byte {at:#x} ({:#x} and {:#x})",
            c.bytes[at], engine.bytes[at]
        )
    })
}

fn pair<T>(both: Vec<T>) -> [T; 2] {
    both.try_into().ok().expect("there are two guests")
}

/// Compares everything about nested state.
pub fn sweep(kvm: &Kvm, sweep: &mut Sweep<'_>, few: bool) -> Result<()> {
    let vendor = Vendor::of(kvm)?;

    for &live in Live::all(vendor) {
        if !live.is_possible(kvm) {
            println!("nested state, {live:?}: this KVM does not have it");
            continue;
        }
        sweep.set_context(format!("nested, {live:?}, "));
        let mut stage = Stage::new(kvm, sweep.engines, live)
            .with_context(|| format!("bring the guests to the state {live:?}"))?;
        let before = sweep.cases;

        get(sweep, &mut stage);
        sizes(sweep, &mut stage, few)?;
        headers(sweep, &mut stage, vendor, few)?;
        bits(sweep, &mut stage, vendor, few)?;
        data(sweep, &mut stage, if few { 100 } else { 4000 })?;
        println!(
            "nested state, {live:?}: {} cases, {} differences",
            sweep.cases - before,
            sweep.differences
        );
    }
    Ok(())
}

/// Buffers that are too small, large enough and larger, and memory that ends within them.
fn get(sweep: &mut Sweep<'_>, stage: &mut Stage<'_>) {
    let edges = [
        0, 1, 4, 7, 8, 127, 128, 129, 0x47f, 0x480, 0x481, 0x107f, 0x1080, 0x1081, 0x207f, 0x2080,
    ];

    for room in edges
        .into_iter()
        .chain([0x2081, 0x7fff_ffff, u32::MAX as usize])
    {
        for mapped in edges {
            stage.get(sweep, room as u32, mapped);
        }
    }
}

/// All sizes in the header, and memory that ends anywhere.
fn sizes(sweep: &mut Sweep<'_>, stage: &mut Stage<'_>, few: bool) -> Result<()> {
    let step = if few { 37 } else { 1 };
    let image = stage.image.clone();
    let near = |edge: usize| edge - 3..edge + 3;
    let edges = near(HEADER)
        .chain(near(HEADER + PAGE))
        .chain(near(HEADER + 2 * PAGE));

    for size in (0..HEADER + 1200).step_by(step).chain(edges.clone()) {
        stage.set(sweep, &image.clone().with_size(size as u32), LARGEST)?;
    }
    for size in [1 << 16, 1 << 31, u32::MAX] {
        stage.set(sweep, &image.clone().with_size(size), LARGEST)?;
    }
    for mapped in (0..LARGEST)
        .step_by(7 * step)
        .chain(edges)
        .filter(|&mapped| mapped <= LARGEST)
    {
        stage.set(sweep, &image, mapped)?;
    }
    Ok(())
}

/// Special values of each header field, alone and in combination.
fn headers(sweep: &mut Sweep<'_>, stage: &mut Stage<'_>, vendor: Vendor, few: bool) -> Result<()> {
    headers_of(sweep, stage, stage.image.clone(), vendor, few)?;
    if stage.image.is_in_l2() {
        return Ok(());
    }
    // A state of another vCPU.
    headers_of(sweep, stage, stage.in_l2.clone(), vendor, few)
}

fn headers_of(
    sweep: &mut Sweep<'_>,
    stage: &mut Stage<'_>,
    image: Image,
    vendor: Vendor,
    few: bool,
) -> Result<()> {
    let known = [GUEST_MODE, RUN_PENDING, EVMCS, MTF_PENDING, GIF_SET];
    let mut all_flags: Vec<u16> = (0..1 << known.len())
        .map(|bits: usize| {
            let set = |i: usize| bits >> i & 1 != 0;

            (0..known.len())
                .filter(|&i| set(i))
                .fold(0, |flags, i| flags | known[i])
        })
        .collect();
    all_flags.extend((0..16).map(|bit| 1 << bit));
    let addresses = [
        0,
        layout::HOST_AREA,
        layout::CONTROL,
        layout::SPARE,
        layout::SPARE + 1,
        layout::SPARE + 0x800,
        u64::MAX,
        u64::MAX << 12,
        1 << 63,
        1 << 52,
        1 << 51,
        1 << 47,
        1 << 39,
        1 << 36,
    ];

    for format in [0, 1, 2, 3, 0x100, 0xffff] {
        for &flags in &all_flags {
            stage.set(
                sweep,
                &image.clone().with_flags(flags).with_format(format),
                LARGEST,
            )?;
        }
    }
    // Each field alone, with all flags. Then runs the guest.
    for &flags in &all_flags {
        let image = image.clone().with_flags(flags);

        if !few || known.contains(&flags) || flags == GUEST_MODE | RUN_PENDING {
            stage.go_on(sweep, &image)?;
        }
        for word in 0..4 {
            for value in addresses.into_iter().chain((0..64).map(|bit| 1 << bit)) {
                if !few || sweep.random.next() % 16 == 0 {
                    stage.set(sweep, &image.clone().with_word(word, value), LARGEST)?;
                }
            }
        }
    }
    for word in 4..15 {
        stage.set(sweep, &image.clone().with_word(word, u64::MAX), LARGEST)?;
    }
    for word in 0..4 {
        for value in addresses {
            if !few || sweep.random.next() % 8 == 0 {
                stage.go_on(sweep, &image.clone().with_word(word, value))?;
            }
        }
    }
    // Fields in combination.
    let sizes = [128, 0x480, 0x1080, 0x2080];
    let third: &[u64] = match vendor {
        // SMM flags, and VMX flags.
        Vendor::Vmx => &[0, 1, 2, 3, 4, 0x8000, 1 << 32, 1 << 33, 1 << 32 | 3],
        Vendor::Svm => &[0],
    };
    let second: &[u64] = match vendor {
        Vendor::Vmx => &addresses,
        // Valid and invalid PATs.
        Vendor::Svm => &[
            0,
            0x0007_0406_0007_0406,
            0x0606_0606_0606_0606,
            2,
            3,
            8,
            1 << 63,
        ],
    };
    let rounds = if few { 300 } else { 3000 };
    for _ in 0..rounds {
        let image = image
            .clone()
            .with_flags(*sweep.random.pick(&all_flags))
            .with_size(*sweep.random.pick(&sizes))
            .with_word(0, *sweep.random.pick(&addresses))
            .with_word(1, *sweep.random.pick(second))
            .with_word(2, *sweep.random.pick(third));
        stage.set(sweep, &image, LARGEST)?;
    }
    Ok(())
}

/// Flips each bit of vmcs12 and vmcb12; with `few`, only bits in fields that are checked.
fn bits(sweep: &mut Sweep<'_>, stage: &mut Stage<'_>, vendor: Vendor, few: bool) -> Result<()> {
    let image = stage.in_l2.clone();
    // Byte offsets: revision, link pointer, primary and secondary controls; or nested paging, then
    // EFER, CR4, CR0 and RFLAGS of the save area.
    let telling: &[usize] = match vendor {
        Vendor::Vmx => &[0, 176, 744, 800],
        Vendor::Svm => &[0x90, 0x4d0, 0x548, 0x558, 0x570],
    };
    let words: Vec<usize> = if few {
        telling.to_vec()
    } else {
        (0..0x700).step_by(8).collect()
    };

    for word in words {
        for bit in 0..64 {
            let mut image = image.clone();

            image.0[HEADER + word + bit / 8] ^= 1 << (bit % 8);
            stage.set(sweep, &image, LARGEST)?;
        }
    }
    Ok(())
}

/// Random changes of some bytes, bits or fields in vmcs12 and vmcb12.
fn data(sweep: &mut Sweep<'_>, stage: &mut Stage<'_>, rounds: usize) -> Result<()> {
    const EDGES: [u64; 8] = [
        0,
        1,
        u64::MAX,
        1 << 63,
        layout::SPARE,
        layout::SPARE + 1,
        0x8000_0000_0000,
        0xffff_ffff,
    ];
    // The shadow follows vmcs12, in a page of its own. Both are smaller than a page.
    let areas = [HEADER..HEADER + 0x700, HEADER + PAGE..HEADER + PAGE + 0x400];

    for _ in 0..rounds {
        let mut image = stage.in_l2.clone();

        for _ in 0..1 + sweep.random.next() % 4 {
            let area = &areas[usize::from(sweep.random.next() % 8 == 0)];
            let at = area.start + sweep.random.next() as usize % area.len();
            match sweep.random.next() % 4 {
                0 => image.0[at] = sweep.random.next() as u8,
                1 => image.0[at] ^= 1 << (sweep.random.next() % 8),
                2 => image.put(at & !7, &sweep.random.pick(&EDGES).to_le_bytes()),
                _ => image.put(at & !3, &(sweep.random.next() as u32).to_le_bytes()),
            }
        }
        stage.set(sweep, &image, LARGEST)?;
    }
    Ok(())
}
