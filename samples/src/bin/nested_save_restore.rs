// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Saves a guest that runs a guest of its own, and has another process go on
//! with it.
//!
//! L1 is a hypervisor of some dozen instructions, on VMX or on SVM; its guest,
//! L2, counts. `save` stops the vCPU while it runs L2 and writes all there is of
//! it to a file: registers, MSRs, events, FPU, local APIC, memory, and what nested
//! virtualisation adds, which KVM_GET_NESTED_STATE gets. `restore` makes a new
//! VM of that. Nested state comes last, and on top of the rest: it is checked
//! against CR0, EFER and SMM, and makes what were L1's registers be L2's.
//!
//! Without a command, it does the one, and starts itself again for the other.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_guest::Engine;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Options;
use kvm_msr_guest::nested::State;
use kvm_msr_guest::nested::Stop;
use kvm_msr_guest::nested::layout::MEMORY;
use serde::Deserialize;
use serde::Serialize;

const PAGE: usize = 4096;

/// `KVM_STATE_NESTED_FORMAT_VMX`
const FORMAT_VMX: u16 = 0;

/// Flags of the header, by what they mean.
const FLAGS: [(u16, &str); 5] = [
    (1 << 0, "runs L2"),
    (1 << 1, "L2 is about to run"),
    (1 << 2, "enlightened VMCS"),
    (1 << 3, "monitor trap pending"),
    (1 << 8, "GIF set"),
];

/// A guest hypervisor is saved, and goes on in another process.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What serves the VMs; any is as the module's parameter says
    #[arg(long, global = true, value_enum, default_value = "any")]
    engine: EngineName,
    /// What serves the VM that is restored, if not the same
    #[arg(long, value_enum)]
    then: Option<EngineName>,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineName {
    Any,
    C,
    Rust,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Any => Engine::Any,
            EngineName::C => Engine::C,
            EngineName::Rust => Engine::Rust,
        }
    }
}

#[derive(Subcommand)]
enum Task {
    /// Runs the guest for a while, and writes it to a file
    Save {
        /// The file
        file: PathBuf,
        /// How far L2 is to count
        #[arg(long, default_value_t = 20)]
        counts: u64,
    },
    /// Goes on with the guest that is in a file
    Restore {
        /// The file
        file: PathBuf,
        /// How much further L2 is to count
        #[arg(long, default_value_t = 20)]
        counts: u64,
    },
    /// Prints the nested state that is in a file
    Show {
        /// The file
        file: PathBuf,
    },
}

/// A guest, as it is in the file.
#[derive(Deserialize, Serialize)]
struct Saved {
    state: State,
    /// Pages that are not all zeroes, by their number.
    memory: Vec<(usize, Vec<u8>)>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let engine = arguments.engine.into();

    match arguments.command {
        Some(Task::Save { file, counts }) => save(engine, &file, counts),
        Some(Task::Restore { file, counts }) => restore(engine, &file, counts),
        Some(Task::Show { file }) => {
            show(&read(&file)?.state.nested);
            Ok(())
        }
        None => {
            let file = std::env::temp_dir().join(format!("nested-{}.json", std::process::id()));
            let done = save(engine, &file, 20).and_then(|()| {
                go_on_in_another_process(arguments.then.unwrap_or(arguments.engine), &file)
            });

            fs::remove_file(&file).ok();
            done
        }
    }
}

fn go_on_in_another_process(engine: EngineName, file: &Path) -> Result<()> {
    let engine = engine.to_possible_value().context("an engine has a name")?;
    let status = Command::new(std::env::current_exe()?)
        .args(["--engine", engine.get_name(), "restore"])
        .arg(file)
        .status()
        .context("start another process")?;

    ensure!(status.success(), "the other process failed: {status}");
    Ok(())
}

fn read(file: &Path) -> Result<Saved> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;

    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a guest that `save` wrote", file.display()))
}

/// Who serves a VM, in words.
fn served_by(guest: &Nested) -> String {
    guest.folder().engine().unwrap_or_else(|| "C".to_owned())
}

fn save(engine: Engine, file: &Path, counts: u64) -> Result<()> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Nested::new(
        &kvm,
        Options {
            irqchip: true,
            ..Options::new(engine)
        },
    )?;

    println!(
        "process {}: a new VM, served by {}",
        std::process::id(),
        served_by(&guest)
    );
    count_to(&mut guest, counts)?;
    guest.complete()?;

    let state = State::save(&kvm, guest.vcpu(), true)?;
    let memory = (0..MEMORY / PAGE)
        .map(|page| (page, guest.memory().read(page * PAGE, PAGE)))
        .filter(|(_, bytes)| bytes.iter().any(|&byte| byte != 0))
        .collect();
    show(&state.nested);
    let saved = Saved { state, memory };
    fs::write(file, serde_json::to_vec(&saved)?)
        .with_context(|| format!("write {}", file.display()))?;
    println!(
        "saved to {}: {} MSRs, {} pages of memory",
        file.display(),
        saved.state.msrs.len(),
        saved.memory.len()
    );
    Ok(())
}

fn restore(engine: Engine, file: &Path, counts: u64) -> Result<()> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let saved = read(file)?;
    let mut guest = Nested::empty(&kvm, engine, true)?;

    for (page, bytes) in &saved.memory {
        ensure!(
            *page < MEMORY / PAGE && bytes.len() <= PAGE,
            "{} has memory that the guest does not",
            file.display()
        );
        guest.write((page * PAGE) as u64, bytes);
    }
    let refused = saved.state.restore(guest.vcpu())?;
    println!(
        "process {}: the VM of {}, served by {}, L2 at {}",
        std::process::id(),
        file.display(),
        served_by(&guest),
        guest.counter()
    );
    for msr in refused {
        println!("  KVM did not take MSR {:#x} back", msr.index);
    }
    let from = guest.counter();
    count_to(&mut guest, from + counts)
}

/// Runs the guest until L2 has counted so far, by way of L1 now and then.
fn count_to(guest: &mut Nested, counts: u64) -> Result<()> {
    let mut exits = 0;
    let from = guest.counter();
    let mut last = from;

    while guest.counter() < counts {
        match guest.run()? {
            Stop::L2 => {
                let counter = guest.counter();
                ensure!(counter == last + 1, "L2 went from {last} to {counter}");
                last = counter;
            }
            Stop::L1(_) => exits += 1,
            Stop::Enabled | Stop::Loaded => (),
            stop => anyhow::bail!("the guest is no more: {stop}"),
        }
    }
    println!("  L2 counted from {from} to {last}, and exited to L1 {exits} times");
    Ok(())
}

/// The header of a state in words, and the main fields of what follows.
fn show(state: &KvmNestedStateBuffer) {
    let vmx = state.format == FORMAT_VMX;
    let flags: Vec<&str> = FLAGS
        .iter()
        .filter(|(flag, _)| state.flags & flag != 0)
        .map(|&(_, name)| name)
        .collect();

    println!(
        "nested state, {} bytes, for {}",
        state.size,
        if vmx { "VMX" } else { "SVM" }
    );
    println!("  flags     {:#x} ({})", state.flags, flags.join(", "));
    if vmx {
        show_vmx(state);
    } else {
        show_svm(state);
    }
}

fn show_vmx(state: &KvmNestedStateBuffer) {
    // SAFETY: All bit patterns are valid, and the format says VMX.
    let (header, vmcs12) = unsafe { (state.hdr.vmx, &state.data.vmx.vmcs12) };
    let long = |offset: usize| u64::from_le_bytes(vmcs12[offset..][..8].try_into().unwrap());
    let word = |offset: usize| u32::from_le_bytes(vmcs12[offset..][..4].try_into().unwrap());

    println!("  VMXON at  {:#x}", header.vmxon_pa);
    println!("  VMCS at   {:#x}", header.vmcs12_pa);
    println!("  SMM flags {:#x}", header.smm.flags);
    if state.size as usize <= size_of_val(&header) + 8 {
        return;
    }
    // KVM's own layout: struct vmcs12 in arch/x86/kvm/vmx/vmcs12.h, which does not change.
    println!(
        "  vmcs12, revision {:#x}, launch state {}",
        word(0),
        word(8)
    );
    println!(
        "    controls  pin {:#x}, CPU {:#x}, exit {:#x}, entry {:#x}",
        word(744),
        word(748),
        word(768),
        word(780)
    );
    println!(
        "    L2        RIP {:#x}, RSP {:#x}, RFLAGS {:#x}, CR0 {:#x}, CR3 {:#x}",
        long(544),
        long(536),
        long(552),
        long(424),
        long(432)
    );
    println!(
        "    L1        RIP {:#x}, RSP {:#x}, CR3 {:#x}",
        long(672),
        long(664),
        long(592)
    );
    println!(
        "    last exit {:#x}, link pointer {:#x}",
        word(812),
        long(176)
    );
}

fn show_svm(state: &KvmNestedStateBuffer) {
    // SAFETY: All bit patterns are valid, and the format says SVM.
    let (header, vmcb12) = unsafe { (state.hdr.svm, &state.data.svm.vmcb12) };
    let long = |offset: usize| u64::from_le_bytes(vmcb12[offset..][..8].try_into().unwrap());
    let word = |offset: usize| u32::from_le_bytes(vmcb12[offset..][..4].try_into().unwrap());

    println!("  VMCB at   {:#x}", header.vmcb_pa);
    if state.flags & 1 == 0 {
        return;
    }
    // AMD APM, volume 2, appendix B. The save area is L1's, for when L2 exits.
    println!("  vmcb12");
    println!(
        "    intercepts {:#x} {:#x}, ASID {}, nested paging {}",
        word(0x0c),
        word(0x10),
        word(0x58),
        long(0x90) & 1
    );
    println!(
        "    L1         RIP {:#x}, RSP {:#x}, RFLAGS {:#x}",
        long(0x578),
        long(0x5d8),
        long(0x570)
    );
    println!(
        "    L1         CR0 {:#x}, CR3 {:#x}, CR4 {:#x}, EFER {:#x}",
        long(0x558),
        long(0x550),
        long(0x548),
        long(0x4d0)
    );
}
